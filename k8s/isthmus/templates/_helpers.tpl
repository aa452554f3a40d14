{{/* Names, labels, and what several templates need to know. */}}

{{- define "isthmus.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 50 characters, so that there is room for suffixes. */}}
{{- define "isthmus.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "isthmus.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "isthmus.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "isthmus.headless" -}}{{ include "isthmus.fullname" . }}-headless{{- end -}}

{{- define "isthmus.baseSelector" -}}
app.kubernetes.io/name: {{ include "isthmus.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pods of the servers, and nothing else of this release. */}}
{{- define "isthmus.selectorLabels" -}}
{{ include "isthmus.baseSelector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Labels of everything; the component is added by whoever has one. */}}
{{- define "isthmus.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "isthmus.baseSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* annotations: of an object, from a map of its own and the common ones, with the indentation of
     metadata. Arguments: the root and the map. */}}
{{- define "isthmus.annotations" -}}
{{- $root := index . 0 -}}
{{- $all := merge (dict) (index . 1) $root.Values.commonAnnotations -}}
{{- with $all }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "isthmus.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "isthmus.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Arguments: an image's values and the tag for want of one. */}}
{{- define "isthmus.image" -}}
{{- $image := index . 0 -}}
{{- if $image.registry }}{{ $image.registry }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default (index . 1) $image.tag }}{{ end -}}
{{- end -}}

{{/* What is not empty is true. */}}
{{- define "isthmus.usesPostgresql" -}}
{{- if or .Values.postgresql.url .Values.postgresql.existingSecret.name -}}true{{- end -}}
{{- end -}}
{{- define "isthmus.hasPlainPort" -}}
{{- if or (not .Values.tls.enabled) .Values.tls.plainPort -}}true{{- end -}}
{{- end -}}
{{- define "isthmus.makesSecret" -}}
{{- if or .Values.postgresql.url (and .Values.auth.enabled (not .Values.auth.existingSecret.name)) -}}true{{- end -}}
{{- end -}}

{{/* The port for clients: without TLS if there is one. */}}
{{- define "isthmus.clientPort" -}}
{{- if include "isthmus.hasPlainPort" . -}}{{ .Values.port }}{{- else -}}{{ .Values.tls.port }}{{- end -}}
{{- end -}}

{{/* How servers forward to one another, and the port for it. */}}
{{- define "isthmus.forwardsByTls" -}}
{{- if and .Values.tls.enabled (include "isthmus.usesPostgresql" .) (or .Values.tls.replication (not .Values.tls.plainPort)) -}}true{{- end -}}
{{- end -}}
{{- define "isthmus.advertisedPort" -}}
{{- if include "isthmus.forwardsByTls" . -}}{{ .Values.tls.port }}{{- else -}}{{ .Values.port }}{{- end -}}
{{- end -}}

{{- define "isthmus.authSecretName" -}}
{{- default (include "isthmus.fullname" .) .Values.auth.existingSecret.name -}}
{{- end -}}
{{- define "isthmus.authSecretKey" -}}
{{- if .Values.auth.existingSecret.name -}}{{ .Values.auth.existingSecret.key }}{{- else -}}password{{- end -}}
{{- end -}}
{{- define "isthmus.tlsSecretName" -}}
{{- default (printf "%s-tls" (include "isthmus.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/* In YAML a bare yes or no is true or false. */}}
{{- define "isthmus.tlsAuthClients" -}}
{{- if kindIs "bool" .Values.tls.authClients -}}
{{- ternary "yes" "no" .Values.tls.authClients -}}
{{- else -}}
{{- .Values.tls.authClients -}}
{{- end -}}
{{- end -}}

{{/* The ports of the containers and Services, as lists of name, port and protocol. */}}
{{- define "isthmus.clientPorts" -}}
{{- if include "isthmus.hasPlainPort" . }}
- name: redis
  port: {{ .Values.port }}
  appProtocol: redis
{{- end }}
{{- if .Values.tls.enabled }}
- name: redis-tls
  port: {{ .Values.tls.port }}
  appProtocol: tls
{{- end }}
{{- end -}}

{{/* What values.schema.json cannot say. One line each, so that helm's message can be read. */}}
{{- define "isthmus.validate" -}}
{{- $postgresql := include "isthmus.usesPostgresql" . -}}
{{- if and .Values.postgresql.url .Values.postgresql.existingSecret.name -}}
{{- fail "postgresql: give either url or existingSecret.name" -}}
{{- end -}}
{{- if and .Values.site.peers (not $postgresql) -}}
{{- fail "site.peers: sites are linked by PostgreSQL; give postgresql.url or postgresql.existingSecret.name" -}}
{{- end -}}
{{- if and .Values.site.peers (not .Values.site.name) -}}
{{- fail "site.peers: give this site a name of its own with site.name" -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.site.peers -}}
{{- if eq .name $.Values.site.name -}}
{{- fail (printf "site.peers: %s is this site itself" .name) -}}
{{- end -}}
{{- if has .name $names -}}
{{- fail (printf "site.peers: %s is given twice" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not $postgresql) -}}
{{- fail "autoscaling: with embedded SQLite there is one server; give postgresql.url or postgresql.existingSecret.name" -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) (not .Values.tls.certManager.enabled) -}}
{{- fail "tls.enabled: give tls.existingSecret or tls.certManager" -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.certManager.enabled -}}
{{- fail "tls: give either existingSecret or certManager" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef.name: name an issuer" -}}
{{- end -}}
{{- if and .Values.auth.password .Values.auth.existingSecret.name -}}
{{- fail "auth: give either password or existingSecret.name" -}}
{{- end -}}
{{- if and (eq .Values.postgresql.sslmode "verify-full") (not .Values.postgresql.ca.existingSecret) -}}
{{- fail "postgresql.sslmode: verify-full needs postgresql.ca.existingSecret" -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add (int .Values.drainDelaySeconds) 11 | int) -}}
{{- fail "terminationGracePeriodSeconds: must be more than drainDelaySeconds and the 10 s that the server takes at most" -}}
{{- end -}}
{{- if and (ne .Values.podDisruptionBudget.minAvailable nil) (ne .Values.podDisruptionBudget.maxUnavailable nil) .Values.podDisruptionBudget.enabled -}}
{{- fail "podDisruptionBudget: give either minAvailable or maxUnavailable; set the other one to null" -}}
{{- end -}}
{{- end -}}
