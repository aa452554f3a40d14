// What is written about the chart must be true: the table of values, the schema, the runbook, the dashboard, versions.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { parse, parseAllDocuments } from "yaml";
import { chart, render, root, valueSets } from "./helm.mjs";

const read = (...names) => fs.readFileSync(path.join(...names), "utf8");
const values = parse(read(chart, "values.yaml"));
const schema = JSON.parse(read(chart, "values.schema.json"));
const alerts = parse(read(chart, "files", "alerts.yaml")).groups.flatMap((group) => group.rules);

const isMap = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
/** Every value by its path. A map that is empty, or that the schema leaves open, is one value. */
function leaves(value, from, prefix = "") {
  const found = [];
  for (const [key, inner] of Object.entries(value)) {
    const at = prefix ? `${prefix}.${key}` : key;
    const its = from.properties?.[key];
    assert.ok(its, `values.schema.json does not know ${at}`);
    if (isMap(inner) && its.properties) found.push(...leaves(inner, its, at));
    else found.push([at, inner]);
  }
  return found;
}

/** The names of metrics that the server's source gives out, or null where this version has none. */
function metricNames() {
  const file = path.join(root, "src", "command", "metrics.cpp");
  if (!fs.existsSync(file)) return null;
  return new Set([...read(file).matchAll(/"((?:isthmus|redis)_[a-z_]+)"/g)].map((match) => match[1]));
}
function assertKnownMetrics(text) {
  const names = metricNames();
  assert.ok(names !== null, "src/command/metrics.cpp is not there");
  for (const [name] of text.matchAll(/\b(isthmus|redis)_[a-z_]+\b/g)) {
    assert.ok(names.has(name) || names.has(name.replace(/_(bucket|sum|count)$/, "")), `the server has no metric ${name}`);
  }
}

export const documentationChecks = {
  "the README's table of values is values.yaml"() {
    const rows = [...read(chart, "README.md").matchAll(/^\| `([\w.]+)` \| (.*?) \| (.+) \|$/gm)];
    const table = Object.fromEntries(rows.map(([, key, value]) => [key, value]));
    assert.equal(Object.keys(table).length, rows.length, "a value stands there twice");
    const wanted = Object.fromEntries(leaves(values, schema).map(([key, value]) => [key, "`" + JSON.stringify(value) + "`"]));
    assert.deepEqual(table, wanted);
  },

  "the schema closes every map whose names it gives, and has nothing that values.yaml lacks"() {
    const visit = (from, value, at) => {
      if (!from.properties) return;
      assert.equal(from.additionalProperties, false, `${at || "the top"} is open`);
      for (const [key, inner] of Object.entries(from.properties)) {
        const name = at ? `${at}.${key}` : key;
        // The parent chart's, and what a probe may have besides.
        if (name === "global" || /Probe\./.test(name)) continue;
        assert.ok(Object.hasOwn(value, key), `values.yaml lacks ${name}`);
        if (inner.type === "object" && isMap(value[key])) visit(inner, value[key], name);
      }
    };
    visit(schema, values, "");
  },

  "the chart's appVersion is the server's version"() {
    const [, version] = read(root, "CMakeLists.txt").match(/project\(isthmus VERSION ([\d.]+)/);
    const { appVersion } = parse(read(chart, "Chart.yaml"));
    assert.equal(appVersion, version);
  },

  "every option in the ConfigMap is one of the server's"() {
    const files = fs.readdirSync(path.join(root, "src")).filter((file) => /^config.*\.cpp$/.test(file));
    const source = files.map((file) => read(root, "src", file)).join("");
    const known = new Set([...source.matchAll(/\{"([a-z][a-z-]*)",/g)].map((match) => match[1]));
    for (const set of valueSets) {
      const config = render(set.file).find((d) => d.data?.["isthmus.conf"]).data["isthmus.conf"];
      for (const [, name] of config.matchAll(/^([a-z-]+) =/gm)) {
        assert.ok(known.has(name), `${set.name}: the server has no option ${name}`);
      }
    }
  },

  "each alert has its section in the runbook, and the runbook no other"() {
    const sections = [...read(root, "docs", "runbook.md").matchAll(/^## (Isthmus\w+)$/gm)].map((match) => match[1]);
    assert.deepEqual(sections, alerts.map((rule) => rule.alert));
  },

  "each alert links to its section"() {
    for (const rule of alerts) assert.equal(rule.annotations.runbook_url, `docs/runbook.md#${rule.alert.toLowerCase()}`);
  },

  "alerts, dashboard and runbook name metrics that the server has"() {
    assertKnownMetrics(alerts.map((rule) => rule.expr).join("\n"));
    assertKnownMetrics(read(chart, "files", "dashboard.json"));
    assertKnownMetrics(read(root, "docs", "runbook.md"));
  },

  "the dashboard: panels have queries, lie side by side, and have numbers of their own"() {
    const { panels } = JSON.parse(read(chart, "files", "dashboard.json"));
    assert.equal(new Set(panels.map((panel) => panel.id)).size, panels.length);
    const taken = new Set();
    for (const { type, title, targets, gridPos: { x, y, w, h } } of panels) {
      if (type !== "row") assert.ok(targets.length > 0 && targets.every((target) => target.expr.includes("$job")), title);
      assert.ok(x + w <= 24, title);
      for (let row = y; row < y + h; ++row) {
        for (let column = x; column < x + w; ++column) {
          assert.ok(!taken.has(`${row} ${column}`), `${title} covers another panel`);
          taken.add(`${row} ${column}`);
        }
      }
    }
  },

  "the examples can be read"() {
    const folder = path.join(root, "k8s", "examples");
    for (const file of fs.readdirSync(folder)) {
      for (const document of parseAllDocuments(read(folder, file))) {
        assert.equal(document.errors.length, 0, `${file}: ${document.errors[0]}`);
        const { apiVersion, kind, metadata } = document.toJS();
        assert.ok(apiVersion && kind && metadata.name, file);
      }
    }
  },

  "pages and values sets that are named exist"() {
    const pages = fs.readdirSync(path.join(root, "docs")).map((name) => path.join(root, "docs", name));
    for (const file of [path.join(chart, "README.md"), path.join(root, "README.md"), path.join(root, "ARCHITECTURE.md"), ...pages]) {
      for (const [, target] of read(file).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
        assert.ok(fs.existsSync(path.join(path.dirname(file), target)), `${path.basename(file)}: ${target}`);
      }
    }
  },
};
