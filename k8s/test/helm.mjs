// Calls of Helm, with values by file or as they are, and what comes back as documents.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments, stringify } from "yaml";

const here = path.dirname(fileURLToPath(import.meta.url));
export const root = path.join(here, "..", "..");
export const chart = path.join(root, "k8s", "isthmus");
export const helms = ["helm3", "helm4"];
export const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "isthmus-chart-"));
process.on("exit", () => fs.rmSync(scratch, { recursive: true, force: true }));

/** The sets of values below ci/, by name. */
export const valueSets = fs.readdirSync(path.join(chart, "ci")).sort()
  .map((file) => ({ name: file.replace("-values.yaml", ""), file: path.join(chart, "ci", file) }));

// Nothing of the person's own Helm or cluster has a say here.
const environment = {
  PATH: process.env.PATH,
  HOME: scratch,
  HELM_CACHE_HOME: path.join(scratch, "cache"),
  HELM_CONFIG_HOME: path.join(scratch, "config"),
  HELM_DATA_HOME: path.join(scratch, "data"),
  KUBECONFIG: path.join(scratch, "none"),
};

export function run(program, args, input) {
  const done = spawnSync(program, args, { env: environment, encoding: "utf8", input, timeout: 120_000, maxBuffer: 1 << 26 });
  if (done.error) throw done.error;
  return { ok: done.status === 0, output: done.stdout, text: done.stdout + done.stderr };
}

export const helm = (which, ...args) => run(path.join(here, "node_modules", ".bin", which), args);

let files = 0;
export function valuesFile(values) {
  const file = path.join(scratch, `values-${++files}.yaml`);
  fs.writeFileSync(file, stringify(values));
  return file;
}

/** Manifests as documents. `values` is a file's path or an object. */
export function render(values, { which = "helm4", kube = "1.34.0", release = "rel" } = {}) {
  const file = typeof values === "string" ? values : valuesFile(values);
  const done = helm(which, "template", release, chart, "--namespace", "ns", "--kube-version", kube, "-f", file);
  if (!done.ok) throw new Error(done.text);
  const documents = parseAllDocuments(done.output);
  for (const document of documents) {
    if (document.errors.length > 0) throw document.errors[0];
  }
  return documents.map((document) => document.toJS()).filter((document) => document !== null);
}

/** True if Helm renders these values. */
export function accepts(values, which = "helm4", kube = "1.34.0") {
  return helm(which, "template", "rel", chart, "--kube-version", kube, "-f", valuesFile(values)).ok;
}
