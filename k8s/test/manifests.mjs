// What rendered manifests must say, check by check.
import assert from "node:assert/strict";
import { render, valueSets } from "./helm.mjs";

const postgresql = { url: "postgresql://isthmus:hidden@db.example.org/isthmus" };
const only = (documents, kind, name) => {
  const found = documents.filter((d) => d.kind === kind && (name === undefined || d.metadata.name === name));
  assert.equal(found.length, 1, `${found.length} of kind ${kind}`);
  return found[0];
};
const none = (documents, ...kinds) => {
  for (const kind of kinds) assert.ok(!documents.some((d) => d.kind === kind), `there is a ${kind}`);
};
const workload = (documents) => documents.find((d) => d.kind === "Deployment" || d.kind === "StatefulSet");
const container = (documents) => workload(documents).spec.template.spec.containers[0];
const environment = (documents) => Object.fromEntries(container(documents).env.map((e) => [e.name, e]));
const settings = (documents) => only(documents, "ConfigMap", "rel-isthmus").data["isthmus.conf"];
const decoded = (text) => Buffer.from(text, "base64").toString();
/** What a text of the environment is once Kubernetes has put in the variables before it. */
const expanded = (text, variables) => text.replace(/\$\((\w+)\)/g, (whole, name) => variables[name] ?? whole);

export const manifestChecks = {
  "without PostgreSQL: one server with a volume"() {
    const documents = render({ replicaCount: 5 });
    none(documents, "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "PrometheusRule");
    const set = only(documents, "StatefulSet");
    assert.equal(set.spec.replicas, 1);
    assert.equal(set.spec.serviceName, "rel-isthmus-headless");
    assert.equal(set.spec.volumeClaimTemplates[0].spec.resources.requests.storage, "8Gi");
    assert.equal(set.spec.persistentVolumeClaimRetentionPolicy.whenDeleted, "Retain");
    assert.match(settings(documents), /^backend = "sqlite:\/data\/isthmus\.db"$/m);
    assert.ok(container(documents).volumeMounts.some((mount) => mount.name === "data" && mount.mountPath === "/data"));
    assert.equal(environment(documents).ISTHMUS_BACKEND, undefined);
  },

  "without persistence: a volume that goes with the pod"() {
    const set = only(render({ embedded: { persistence: { enabled: false } } }), "StatefulSet");
    assert.equal(set.spec.volumeClaimTemplates, undefined);
    assert.deepEqual(set.spec.template.spec.volumes.find((v) => v.name === "data").emptyDir, {});
  },

  "an existing claim is used"() {
    const set = only(render({ embedded: { persistence: { existingClaim: "mine" } } }), "StatefulSet");
    assert.equal(set.spec.volumeClaimTemplates, undefined);
    assert.equal(set.spec.template.spec.volumes.find((v) => v.name === "data").persistentVolumeClaim.claimName, "mine");
  },

  "a spread constraint keeps the selector that it has"() {
    const constraint = { maxSkew: 1, topologyKey: "zone", whenUnsatisfiable: "ScheduleAnyway" };
    const labelSelector = { matchLabels: { "app.kubernetes.io/name": "isthmus" } };
    const documents = render({ postgresql, topologySpreadConstraints: [{ ...constraint, labelSelector }, constraint] });
    const [own, added] = workload(documents).spec.template.spec.topologySpreadConstraints;
    assert.deepEqual(own.labelSelector, labelSelector);
    assert.deepEqual(added.labelSelector.matchLabels, workload(documents).spec.selector.matchLabels);
  },

  "with PostgreSQL: several servers that find each other"() {
    const documents = render({ postgresql });
    none(documents, "StatefulSet", "PersistentVolumeClaim");
    assert.equal(only(documents, "Deployment").spec.replicas, 2);
    const variables = environment(documents);
    assert.equal(expanded(variables.ISTHMUS_ADVERTISE.value, { POD_IP: "10.1.2.3" }), "10.1.2.3:6379");
    assert.ok(container(documents).env.findIndex((e) => e.name === "POD_IP") <
      container(documents).env.findIndex((e) => e.name === "ISTHMUS_ADVERTISE"), "a variable must stand before its use");
    const reference = variables.ISTHMUS_BACKEND.valueFrom.secretKeyRef;
    assert.equal(decoded(only(documents, "Secret", reference.name).data[reference.key]), postgresql.url);
    assert.ok(!workload(documents).spec.template.spec.volumes.some((v) => v.name === "data"));
  },

  "an existing Secret for the URL: none is made"() {
    const documents = render({ postgresql: { existingSecret: { name: "db-app" } }, auth: { existingSecret: { name: "p", key: "pw" } } });
    none(documents, "Secret");
    assert.deepEqual(environment(documents).ISTHMUS_BACKEND.valueFrom.secretKeyRef, { name: "db-app", key: "uri" });
  },

  "a rolling update never takes a server before its successor is ready, and drains it"() {
    const documents = render({ postgresql });
    const { spec } = only(documents, "Deployment");
    assert.deepEqual(spec.strategy, { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } });
    const pod = spec.template.spec;
    assert.deepEqual(pod.containers[0].lifecycle, { preStop: { sleep: { seconds: 5 } } });
    // The hook's time counts; the server takes 10 s at most.
    assert.ok(pod.terminationGracePeriodSeconds > 5 + 10);
  },

  "before Kubernetes 1.30 the hook is a program"() {
    const of = (kube) => container(render({ postgresql }, { kube })).lifecycle.preStop;
    assert.deepEqual(of("1.29.9"), { exec: { command: ["sleep", "5"] } });
    assert.deepEqual(of("1.30.0-gke.100"), { sleep: { seconds: 5 } });
    // Before 1.33 a sleep of 0 s is refused.
    assert.equal(container(render({ postgresql, drainDelaySeconds: 0 })).lifecycle, undefined);
  },

  "liveness does not depend on PostgreSQL, readiness does unless told"() {
    const { livenessProbe, startupProbe, readinessProbe } = container(render({ postgresql }));
    assert.equal(livenessProbe.httpGet.path, "/healthz");
    assert.equal(startupProbe.httpGet.path, "/healthz");
    assert.equal(readinessProbe.httpGet.path, "/readyz");
    assert.equal(readinessProbe.path, undefined);
    const told = container(render({ postgresql, readinessProbe: { path: "/healthz", failureThreshold: 9 } })).readinessProbe;
    assert.equal(told.httpGet.path, "/healthz");
    assert.equal(told.failureThreshold, 9);
  },

  "links: each peer's URL comes from its Secret"() {
    const peers = ["tokyo", "sao-paulo"].map((name) => ({ name, existingSecret: { name: "peers", key: name } }));
    const documents = render({ postgresql, site: { name: "frankfurt", peers } });
    assert.match(settings(documents), /^site = "frankfurt"$/m);
    const list = container(documents).env;
    const use = list.findIndex((e) => e.name === "ISTHMUS_PEER");
    const known = {};
    for (const entry of list.slice(0, use)) {
      const reference = entry.valueFrom?.secretKeyRef;
      if (reference) known[entry.name] = `postgresql://${reference.name}/${reference.key}`;
    }
    assert.equal(expanded(list[use].value, known), "tokyo=postgresql://peers/tokyo sao-paulo=postgresql://peers/sao-paulo");
    assert.equal(environment(render({ postgresql, site: { name: "frankfurt" } })).ISTHMUS_PEER, undefined);
  },

  "no password or URL outside of Secrets"() {
    const values = { postgresql, auth: { password: "hidden" }, site: { name: "a", peers: [{ name: "b", existingSecret: { name: "s", key: "b" } }] } };
    for (const document of render(values)) {
      const text = JSON.stringify(document);
      assert.ok(!text.includes("hidden"), `${document.kind} shows it`);
      if (document.kind !== "Secret") assert.ok(!text.includes(Buffer.from("hidden").toString("base64")), document.kind);
    }
  },

  "the password: made up, given, from a Secret, none"() {
    const made = only(render({}), "Secret");
    assert.equal(decoded(made.data.password).length, 32);
    assert.equal(decoded(only(render({ auth: { password: "p w" } }), "Secret").data.password), "p w");
    const existing = render({ auth: { existingSecret: { name: "mine", key: "pw" } } });
    none(existing, "Secret");
    assert.deepEqual(workload(existing).spec.template.spec.volumes.find((v) => v.name === "auth").secret,
      { secretName: "mine", items: [{ key: "pw", path: "password" }] });
    assert.match(settings(existing), /^requirepass-file = "\/etc\/isthmus\/auth\/password"$/m);
    const open = render({ auth: { enabled: false } });
    none(open, "Secret");
    assert.doesNotMatch(settings(open), /requirepass/);
  },

  "a changed configuration, URL or password restarts the pods, a password that was made up does not"() {
    const annotations = (values) => workload(render(values)).spec.template.metadata.annotations;
    const base = annotations({ postgresql });
    assert.deepEqual(annotations({ postgresql }), base);
    assert.notEqual(annotations({ postgresql, config: { "log-level": "debug" } })["checksum/config"], base["checksum/config"]);
    assert.notEqual(annotations({ postgresql: { url: "postgresql://other/x" } })["checksum/secret"], base["checksum/secret"]);
    assert.notEqual(annotations({ postgresql, auth: { password: "x" } })["checksum/secret"], base["checksum/secret"]);
  },

  "options of the server: text is quoted, whole numbers stay whole"() {
    const text = settings(render({ config: { "slowlog-log-slower-than": 1000000, "maxmemory": "3gb", "client-output-buffer-limit": "pubsub 64mb 16mb 60" } }));
    assert.match(text, /^slowlog-log-slower-than = 1000000$/m);
    assert.match(text, /^maxmemory = "3gb"$/m);
    assert.match(text, /^client-output-buffer-limit = "pubsub 64mb 16mb 60"$/m);
    assert.match(text, /^log-format = "json"$/m);
  },

  "TLS: a port beside the plain one, with cert-manager's certificate"() {
    const documents = render({ postgresql, tls: { enabled: true, certManager: { enabled: true, issuerRef: { name: "ca" }, dnsNames: ["redis.example.org"] } } });
    const certificate = only(documents, "Certificate");
    assert.equal(certificate.spec.secretName, "rel-isthmus-tls");
    for (const name of ["rel-isthmus.ns.svc", "*.rel-isthmus-headless.ns.svc", "redis.example.org"]) {
      assert.ok(certificate.spec.dnsNames.includes(name), name);
    }
    // The Secret as a whole: with items or subPath a renewed certificate would not arrive.
    assert.deepEqual(workload(documents).spec.template.spec.volumes.find((v) => v.name === "tls").secret, { secretName: "rel-isthmus-tls" });
    assert.deepEqual(only(documents, "Service", "rel-isthmus").spec.ports.map((p) => [p.name, p.port, p.appProtocol]),
      [["redis", 6379, "redis"], ["redis-tls", 6380, "tls"]]);
    const text = settings(documents);
    assert.match(text, /^tls-port = 6380$/m);
    assert.match(text, /^tls-auth-clients = "no"$/m);
    assert.match(text, /^tls-replication = "no"$/m);
    assert.doesNotMatch(text, /tls-ca-cert-file/);
    assert.equal(environment(documents).ISTHMUS_ADVERTISE.value, "$(POD_IP):6379");
  },

  "TLS: forwarding by it, beside the plain port"() {
    const documents = render({ postgresql, tls: { enabled: true, replication: true, existingSecret: "cert" } });
    assert.match(settings(documents), /^port = 6379$/m);
    assert.match(settings(documents), /^tls-replication = "yes"$/m);
    assert.match(settings(documents), /^tls-ca-cert-file = /m);
    assert.equal(environment(documents).ISTHMUS_ADVERTISE.value, "$(POD_IP):6380");
  },

  "without a password protected mode is off, unless the values say otherwise"() {
    assert.match(settings(render({ auth: { enabled: false } })), /^protected-mode = "no"$/m);
    assert.doesNotMatch(settings(render({})), /protected-mode/);
    const chosen = settings(render({ auth: { enabled: false }, config: { "protected-mode": "yes" } }));
    assert.deepEqual(chosen.match(/^protected-mode = .*$/gm), ['protected-mode = "yes"']);
  },

  "TLS only: the plain port is off everywhere"() {
    const documents = render({ postgresql, tls: { enabled: true, plainPort: false, existingSecret: "cert", authClients: "yes" } });
    none(documents, "Certificate");
    assert.match(settings(documents), /^port = "off"$/m);
    assert.match(settings(documents), /^tls-ca-cert-file = /m);
    assert.match(settings(documents), /^tls-replication = "yes"$/m);
    assert.equal(environment(documents).ISTHMUS_ADVERTISE.value, "$(POD_IP):6380");
    for (const service of documents.filter((d) => d.kind === "Service")) {
      assert.ok(!service.spec.ports.some((p) => p.name === "redis"), service.metadata.name);
    }
    assert.match(only(documents, "Pod").spec.containers[0].command[2], /-p 6380 --tls/);
  },

  "TLS only without client certificates: the servers still check each other"() {
    const values = { tls: { enabled: true, plainPort: false, existingSecret: "cert" } };
    assert.match(settings(render({ postgresql, ...values })), /^tls-ca-cert-file = /m);
    assert.doesNotMatch(settings(render(values)), /tls-ca-cert-file|tls-replication = "yes"/, "one server with SQLite talks to no other");
  },

  "every container is locked down"() {
    for (const set of valueSets) {
      for (const document of render(set.file)) {
        const pod = document.kind === "Pod" ? document.spec : document.spec?.template?.spec;
        if (!pod) continue;
        assert.equal(pod.automountServiceAccountToken, false);
        assert.equal(pod.enableServiceLinks, false);
        assert.equal(pod.securityContext.runAsNonRoot, true);
        assert.equal(pod.securityContext.seccompProfile.type, "RuntimeDefault");
        const { securityContext } = pod.containers[0];
        assert.deepEqual(securityContext, { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
      }
    }
  },

  "selectors find the servers and nothing else"() {
    for (const set of valueSets) {
      const documents = render(set.file);
      const matches = (selector, labels) => Object.entries(selector).every(([key, value]) => labels[key] === value);
      const pods = workload(documents).spec.template.metadata.labels;
      const test = documents.find((d) => d.kind === "Pod").metadata.labels;
      const selectors = documents.map((d) => [d, d.kind === "Service" ? d.spec.selector : d.spec?.podSelector?.matchLabels ?? (d.kind === "ServiceMonitor" ? undefined : d.spec?.selector?.matchLabels)]);
      for (const [document, selector] of selectors.filter(([, selector]) => selector)) {
        assert.ok(matches(selector, pods), `${document.kind} misses the servers`);
        assert.ok(!matches(selector, test), `${document.kind} finds the test's pod`);
      }
    }
  },

  "an autoscaler has the replicas to itself"() {
    const documents = render({ postgresql, autoscaling: { enabled: true } });
    assert.equal(only(documents, "Deployment").spec.replicas, undefined);
    assert.equal(only(documents, "HorizontalPodAutoscaler").spec.scaleTargetRef.name, "rel-isthmus");
  },

  "a disruption budget does not guard servers that are unwell"() {
    const { spec } = only(render({ postgresql, podDisruptionBudget: { enabled: true } }), "PodDisruptionBudget");
    assert.equal(spec.maxUnavailable, 1);
    assert.equal(spec.unhealthyPodEvictionPolicy, "AlwaysAllow");
  },

  "metrics: one target for each pod"() {
    const documents = render({ serviceMonitor: { enabled: true } });
    const wanted = only(documents, "ServiceMonitor").spec.selector.matchLabels;
    const found = documents.filter((d) => d.kind === "Service" && Object.entries(wanted).every(([k, v]) => d.metadata.labels[k] === v));
    assert.deepEqual(found.map((d) => d.metadata.name), ["rel-isthmus-headless"]);
    assert.equal(found[0].spec.publishNotReadyAddresses, true);
    assert.ok(!only(documents, "Service", "rel-isthmus").spec.ports.some((p) => p.name === "http"), "clients do not see metrics");
  },

  "network policy: the other servers and the test get in, whoever the clients are"() {
    const documents = render({ networkPolicy: { enabled: true, clients: [{ namespaceSelector: { matchLabels: { a: "b" } } }] } });
    const [clients, metrics] = only(documents, "NetworkPolicy").spec.ingress;
    assert.equal(clients.from.length, 3);
    assert.equal(clients.from[0].podSelector.matchLabels["app.kubernetes.io/component"], "server");
    assert.equal(clients.from[1].podSelector.matchLabels["app.kubernetes.io/component"], "test");
    assert.deepEqual(metrics, { ports: [{ port: "http", protocol: "TCP" }] });
    assert.deepEqual(only(documents, "NetworkPolicy").spec.policyTypes, ["Ingress"]);
  },

  "alerts can be left out and added, and say where the runbook is"() {
    const rule = (prometheusRule) => only(render({ prometheusRule: { enabled: true, ...prometheusRule } }), "PrometheusRule").spec.groups.flatMap((g) => g.rules);
    const every = rule({});
    assert.ok(every.length > 20);
    const fewer = rule({ disabledAlerts: ["IsthmusLinkDown"], runbookUrl: "https://wiki.example.org/x" });
    assert.equal(fewer.length, every.length - 1);
    for (const alert of fewer) {
      assert.equal(alert.annotations.runbook_url, `https://wiki.example.org/x#${alert.alert.toLowerCase()}`);
      assert.match(alert.annotations.summary, /\S/);
    }
    assert.ok(every.some((alert) => alert.annotations.summary.includes("{{ $labels.instance }}")), "Prometheus' own templates stay");
  },

  "names: a release named after the chart, long names, overrides"() {
    const name = (values, release) => workload(render(values, { release })).metadata.name;
    assert.equal(name({}), "rel-isthmus");
    assert.equal(name({}, "isthmus-eu"), "isthmus-eu");
    assert.equal(name({ fullnameOverride: "x" }), "x");
    assert.ok(`${name({}, "a".repeat(53))}-headless`.length <= 63);
  },

  "objects of the user's own are templates"() {
    const documents = render(valueSets.find((set) => set.name === "everything").file);
    assert.ok(documents.some((d) => d.metadata.name === "rel-more"));
    assert.ok(workload(documents).spec.template.spec.containers[0].env.some((e) => e.name === "RELEASE" && e.value === "rel"));
  },
};
