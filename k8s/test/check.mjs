// All checks of the chart, in order. Each check is one function that throws; see run.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { promtoolTests, testedAlerts } from "./alerts.mjs";
import { documentationChecks } from "./documentation.mjs";
import { accepts, chart, helm, helms, render, run, scratch, valuesFile, valueSets } from "./helm.mjs";
import { manifestChecks } from "./manifests.mjs";
import { bySchema, byType } from "./strict.mjs";
import { parse, parseAllDocuments } from "yaml";

// The oldest that the chart allows, one on each side of the sleep action, and the newest that is known here.
const KUBES = ["1.27.0", "1.29.5", "1.30.0", "1.34.0"];

let passed = 0;
let failed = 0;
async function check(name, body) {
  try {
    await body();
    passed += 1;
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n  ${String(error.message ?? error).trim().replaceAll("\n", "\n  ")}`);
  }
}
const title = (text) => console.log(`-- ${text}`);
const none = (findings) => assert.equal(findings.length, 0, findings.slice(0, 20).join("\n"));

title("Lint and render with two majors of Helm");
const all = [];
for (const set of valueSets) {
  await check(`${set.name}: lint`, () => {
    for (const which of helms) {
      const done = helm(which, "lint", "--strict", chart, "-f", set.file);
      assert.ok(done.ok, `${which}: ${done.text}`);
    }
  });
  await check(`${set.name}: both majors render the same`, () => {
    const [three, four] = helms.map((which) => render(set.file, { which }));
    // A password that was made up differs each time.
    for (const document of [...three, ...four]) if (document.kind === "Secret") delete document.data.password;
    assert.ok(three.length >= 5);
    assert.deepEqual(three, four);
  });
  for (const kube of KUBES) {
    await check(`${set.name}: Kubernetes ${kube}`, () => {
      for (const document of render(set.file, { kube })) all.push({ name: `${set.name} ${kube}`, document });
    });
  }
}
await check("an older Kubernetes is refused", () => {
  for (const which of helms) assert.ok(!accepts({}, which, "1.26.9"), which);
});
await check("the chart can be packaged and installed from the package", () => {
  for (const which of helms) {
    const folder = path.join(scratch, which);
    assert.ok(helm(which, "package", chart, "-d", folder).ok);
    const [file] = fs.readdirSync(folder);
    assert.ok(helm(which, "template", "rel", path.join(folder, file)).ok);
  }
});
await check("a new version of the chart alone restarts nothing", () => {
  const pods = (version) => {
    const folder = path.join(scratch, version);
    assert.ok(helm("helm4", "package", chart, "-d", folder, "--version", version).ok);
    const done = helm("helm4", "template", "rel", path.join(folder, `isthmus-${version}.tgz`), "-f", valuesFile({ auth: { password: "x" } }));
    return parseAllDocuments(done.output).map((document) => document.toJS()).find((d) => d?.kind === "StatefulSet").spec.template;
  };
  assert.deepEqual(pods("1.0.0"), pods("2.0.0"));
});

title("Strict validation");
await check("schemas of Kubernetes", async () => none(await bySchema(all)));
await check("types of Kubernetes", () => none(byType(all)));
await check("the validation finds what is wrong", async () => {
  const deployment = () => structuredClone(render({ postgresql: { url: "postgresql://db/x" } }).find((d) => d.kind === "Deployment"));
  const unknown = deployment();
  unknown.spec.template.spec.containers[0].readynessProbe = {};
  assert.equal(byType([{ name: "unknown field", document: unknown }]).length, 1);
  const wrong = deployment();
  wrong.spec.replicas = "two";
  assert.equal((await bySchema([{ name: "wrong type", document: wrong }])).length, 1);
  const lacking = deployment();
  delete lacking.spec.selector;
  assert.equal((await bySchema([{ name: "missing field", document: lacking }])).length, 1);
});
await check("names are unique in each rendering", () => {
  for (const set of valueSets) {
    const seen = render(set.file).map((d) => `${d.kind} ${d.metadata.namespace} ${d.metadata.name}`);
    assert.equal(new Set(seen).size, seen.length, set.name);
  }
});

title("Values that are refused");
const postgresql = { url: "postgresql://db.example.org/isthmus" };
const peer = (name) => ({ name, existingSecret: { name: "peers", key: name } });
const refused = {
  "an unknown value": { replicas: 3 },
  "an unknown value below another": { auth: { enable: true } },
  "a wrong type": { replicaCount: "two" },
  "a port that is none": { port: 70000 },
  "a URL of another kind": { postgresql: { url: "mysql://db/x" } },
  "a peer's URL in the ConfigMap": { config: { peer: "tokyo=postgresql://u:p@db/x" } },
  "a password in the ConfigMap": { config: { requirepass: "secret" } },
  "a backend in the ConfigMap": { config: { backend: "postgresql://u:p@db/x" } },
  "a value that would break out of its line": { config: { "log-level": 'info"\nrequirepass = "x' } },
  "a URL and a Secret for it": { postgresql: { ...postgresql, existingSecret: { name: "x" } } },
  "peers without PostgreSQL": { site: { name: "a", peers: [peer("b")] } },
  "peers without a name of our own": { postgresql, site: { peers: [peer("b")] } },
  "a peer that is ourselves": { postgresql, site: { name: "a", peers: [peer("a")] } },
  "a peer given twice": { postgresql, site: { name: "a", peers: [peer("b"), peer("b")] } },
  "a peer without a Secret": { postgresql, site: { name: "a", peers: [{ name: "b" }] } },
  "a site's name with a blank": { postgresql, site: { name: "a b" } },
  "an autoscaler of SQLite": { autoscaling: { enabled: true } },
  "TLS without a certificate": { tls: { enabled: true } },
  "TLS with two certificates": { tls: { enabled: true, existingSecret: "x", certManager: { enabled: true, issuerRef: { name: "y" } } } },
  "cert-manager without an issuer": { tls: { enabled: true, certManager: { enabled: true } } },
  "two passwords": { auth: { password: "x", existingSecret: { name: "y" } } },
  "verify-full without an authority": { postgresql: { ...postgresql, sslmode: "verify-full" } },
  "a grace period shorter than the drain": { drainDelaySeconds: 30 },
  "a disruption budget said twice": { podDisruptionBudget: { enabled: true, minAvailable: 1 } },
  "a volume for several nodes": { embedded: { persistence: { accessModes: ["ReadWriteMany"] } } },
};
for (const [name, values] of Object.entries(refused)) {
  await check(name, () => {
    for (const which of helms) assert.ok(!accepts(values, which), `${which} accepts it`);
  });
}
await check("a value that is right is accepted", () => {
  assert.ok(accepts({ postgresql, site: { name: "a", peers: [peer("b")] } }));
});

title("What the manifests say");
for (const [name, body] of Object.entries(manifestChecks)) await check(name, body);
await check("the notes", () => {
  // Helm prints them only where there is a cluster, so here a copy of the chart has them as an object.
  const copy = path.join(scratch, "notes");
  fs.cpSync(chart, copy, { recursive: true });
  fs.writeFileSync(path.join(copy, "templates", "notes.yaml"),
    'kind: Notes\ntext: |\n  {{- include (print .Template.BasePath "/NOTES.txt") . | nindent 2 }}\n');
  for (const which of helms) {
    const notes = (values) => {
      const done = helm(which, "template", "rel", copy, "-n", "ns", "-f", valuesFile(values), "-s", "templates/notes.yaml");
      assert.ok(done.ok, done.text);
      return done.output;
    };
    assert.match(notes({}), /redis:\/\/:PASSWORD@rel-isthmus\.ns\.svc:6379[^]*get secret[^]*redis-cli -p 6379 --askpass PING/);
    const open = notes({ auth: { enabled: false } });
    assert.match(open, /no password/);
    assert.doesNotMatch(open, /get secret/);
    assert.doesNotMatch(notes({ postgresql: { url: "postgresql://u:hidden@db/x" }, auth: { password: "hidden" } }), /hidden/);
  }
});

title("Alerts");
const rules = path.join(chart, "files", "alerts.yaml");
const promtool = (...args) => {
  const done = run("promtool", args);
  assert.ok(done.ok, done.text);
};
await check("the rule file", () => promtool("check", "rules", "--lint=all", "--lint-fatal", rules));
await check("the rules as the chart renders them", () => {
  const rendered = render({ prometheusRule: { enabled: true } }).find((d) => d.kind === "PrometheusRule");
  const file = valuesFile(rendered.spec);
  promtool("check", "rules", file);
  const text = fs.readFileSync(file, "utf8");
  assert.ok(!text.includes('job="isthmus"') && text.includes('namespace="ns",service="rel-isthmus-headless"'));
});
await check("each alert is tested", () => {
  const names = parse(fs.readFileSync(rules, "utf8")).groups.flatMap((group) => group.rules.map((rule) => rule.alert));
  assert.deepEqual([...testedAlerts].sort(), [...names].sort());
});
await check("each alert fires when it should, and only then", () => {
  const file = path.join(scratch, "alerts.yaml");
  fs.writeFileSync(file, promtoolTests(rules));
  promtool("test", "rules", file);
});

title("Documentation");
for (const [name, body] of Object.entries(documentationChecks)) await check(name, body);

console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
