{{/* The pod of a server: the same for the Deployment and the StatefulSet but for the volume. */}}

{{- define "isthmus.podTemplate" -}}
{{- $postgresql := include "isthmus.usesPostgresql" . -}}
metadata:
  labels:
    {{- /* Without the chart's version, so that a new chart alone restarts nothing. */}}
    {{- include "isthmus.selectorLabels" . | nindent 4 }}
    {{- with merge (dict) .Values.podLabels .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: isthmus
    checksum/config: {{ include "isthmus.config" . | sha256sum }}
    {{- if or .Values.postgresql.url .Values.auth.password }}
    # Of what the values say only: a password that was made up is another one each time that nobody looks it up.
    checksum/secret: {{ printf "%s %s" .Values.postgresql.url .Values.auth.password | sha256sum }}
    {{- end }}
    {{- with merge (dict) .Values.podAnnotations .Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "isthmus.serviceAccountName" . }}
  automountServiceAccountToken: false
  # Variables such as ISTHMUS_PORT, which Kubernetes makes for a Service of that name, are not options.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $constraint := . }}
    {{- if not (hasKey . "labelSelector") }}
    {{- $own := dict "labelSelector" (dict "matchLabels" (include "isthmus.selectorLabels" $ | fromYaml)) }}
    {{- $constraint = merge $own . }}
    {{- end }}
    - {{ toYaml $constraint | nindent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
  containers:
    - name: isthmus
      image: {{ include "isthmus.image" (list .Values.image .Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - --config
        - /etc/isthmus/config/isthmus.conf
        {{- range .Values.extraArgs }}
        - {{ tpl . $ | quote }}
        {{- end }}
      env:
        {{- include "isthmus.env" . | nindent 8 }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range include "isthmus.clientPorts" . | fromYamlArray }}
        - name: {{ .name }}
          containerPort: {{ .port }}
        {{- end }}
        - name: http
          containerPort: {{ .Values.httpPort }}
      startupProbe:
        httpGet:
          path: /healthz
          port: http
        {{- toYaml .Values.startupProbe | nindent 8 }}
      # The process only: that PostgreSQL is away is no reason to end a server that has the state in memory.
      livenessProbe:
        httpGet:
          path: /healthz
          port: http
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet:
          path: {{ .Values.readinessProbe.path }}
          port: http
        {{- toYaml (omit .Values.readinessProbe "path") | nindent 8 }}
      {{- with include "isthmus.lifecycle" . }}
      lifecycle:
        {{- . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        {{- include "isthmus.volumeMounts" . | nindent 8 }}
    {{- with .Values.extraContainers }}
    {{- tpl (toYaml .) $ | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "isthmus.volumes" . | nindent 4 }}
{{- end -}}

{{/* The pod leaves the Service first, and is told to end when every node has heard of it. */}}
{{- define "isthmus.lifecycle" -}}
{{- if .Values.lifecycle }}
{{- toYaml .Values.lifecycle }}
{{- else if .Values.drainDelaySeconds -}}
preStop:
  {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
  sleep:
    seconds: {{ .Values.drainDelaySeconds }}
  {{- else }}
  exec:
    command: ["sleep", {{ .Values.drainDelaySeconds | toString | quote }}]
  {{- end }}
{{- end }}
{{- end -}}

{{/* The server's config file. Its checksum is of this alone: the ConfigMap's labels change with the chart's version. */}}
{{- define "isthmus.config" -}}
# Passwords and URLs are not here but in Secrets.
bind = {{ .Values.bind | quote }}
port = {{ if include "isthmus.hasPlainPort" . }}{{ .Values.port }}{{ else }}"off"{{ end }}
http-port = {{ .Values.httpPort }}
{{- if not (include "isthmus.usesPostgresql" .) }}
backend = "sqlite:/data/isthmus.db"
{{- end }}
{{- with .Values.site.name }}
site = {{ . | quote }}
{{- end }}
{{- if .Values.auth.enabled }}
requirepass-file = "/etc/isthmus/auth/password"
{{- else if not (hasKey .Values.config "protected-mode") }}
# Without a password: otherwise only this pod itself would be served.
protected-mode = "no"
{{- end }}
{{- if .Values.tls.enabled }}
tls-port = {{ .Values.tls.port }}
tls-cert-file = "/etc/isthmus/tls/tls.crt"
tls-key-file = "/etc/isthmus/tls/tls.key"
{{- if or (include "isthmus.forwardsByTls" .) (ne (include "isthmus.tlsAuthClients" .) "no") }}
tls-ca-cert-file = "/etc/isthmus/tls/ca.crt"
{{- end }}
tls-auth-clients = {{ include "isthmus.tlsAuthClients" . | quote }}
tls-replication = {{ ternary "yes" "no" (include "isthmus.forwardsByTls" . | not | not) | quote }}
{{- end }}
{{- range $name, $value := .Values.config }}
{{- /* Helm reads numbers as floating point, which it would write as 1e+06, and a bare yes or no as true or false. */}}
{{ $name }} = {{ if kindIs "string" $value }}{{ $value | quote }}{{ else if kindIs "bool" $value }}{{ ternary "yes" "no" $value | quote }}{{ else }}{{ int64 $value }}{{ end }}
{{- end }}
{{- end -}}

{{- define "isthmus.env" -}}
{{- $secret := include "isthmus.fullname" . -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- if include "isthmus.usesPostgresql" . }}
- name: ISTHMUS_ADVERTISE
  value: $(POD_IP):{{ include "isthmus.advertisedPort" . }}
- name: ISTHMUS_BACKEND
  valueFrom:
    secretKeyRef:
      name: {{ default $secret .Values.postgresql.existingSecret.name }}
      key: {{ if .Values.postgresql.url }}postgresql-url{{ else }}{{ .Values.postgresql.existingSecret.key }}{{ end }}
{{- with .Values.postgresql.sslmode }}
- name: PGSSLMODE
  value: {{ . }}
{{- end }}
{{- if .Values.postgresql.ca.existingSecret }}
- name: PGSSLROOTCERT
  value: /etc/isthmus/postgresql/ca.crt
{{- end }}
{{- end }}
{{- $peers := list }}
{{- range $i, $peer := .Values.site.peers }}
- name: PEER_URL_{{ $i }}
  valueFrom:
    secretKeyRef:
      name: {{ $peer.existingSecret.name }}
      key: {{ $peer.existingSecret.key }}
{{- $peers = append $peers (printf "%s=$(PEER_URL_%d)" $peer.name $i) }}
{{- end }}
{{- with $peers }}
- name: ISTHMUS_PEER
  value: {{ join " " . | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{- define "isthmus.volumeMounts" -}}
- name: config
  mountPath: /etc/isthmus/config
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.auth.enabled }}
- name: auth
  mountPath: /etc/isthmus/auth
  readOnly: true
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/isthmus/tls
  readOnly: true
{{- end }}
{{- if and (include "isthmus.usesPostgresql" .) .Values.postgresql.ca.existingSecret }}
- name: postgresql-ca
  mountPath: /etc/isthmus/postgresql
  readOnly: true
{{- end }}
{{- if not (include "isthmus.usesPostgresql" .) }}
- name: data
  mountPath: /data
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{- define "isthmus.volumes" -}}
- name: config
  configMap:
    name: {{ include "isthmus.fullname" . }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if .Values.auth.enabled }}
- name: auth
  secret:
    secretName: {{ include "isthmus.authSecretName" . }}
    items:
      - key: {{ include "isthmus.authSecretKey" . }}
        path: password
{{- end }}
{{- if .Values.tls.enabled }}
# As a whole and not by items, so that a new certificate arrives in the pod.
- name: tls
  secret:
    secretName: {{ include "isthmus.tlsSecretName" . }}
{{- end }}
{{- if and (include "isthmus.usesPostgresql" .) .Values.postgresql.ca.existingSecret }}
- name: postgresql-ca
  secret:
    secretName: {{ .Values.postgresql.ca.existingSecret }}
    items:
      - key: {{ .Values.postgresql.ca.key }}
        path: ca.crt
{{- end }}
{{- with .Values.embedded.persistence }}
{{- if not (include "isthmus.usesPostgresql" $) }}
{{- if not .enabled }}
- name: data
  emptyDir: {}
{{- else if .existingClaim }}
- name: data
  persistentVolumeClaim:
    claimName: {{ .existingClaim }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}
