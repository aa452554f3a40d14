// Judges manifests as strictly as an API server with field validation would: by the compiled JSON schemas of Kubernetes (wrong
// types, missing fields, bad values) and by TypeScript's types of the same (fields that do not exist).
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);

const PACKAGES = {
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
  "cert-manager.io/v1": "@kubernetes-models/cert-manager/cert-manager.io/v1",
};
const moduleOf = (apiVersion) => PACKAGES[apiVersion] ?? `kubernetes-models/${apiVersion}`;

/** Findings of the schemas, one line each. */
export async function bySchema(named) {
  const findings = [];
  for (const { name, document } of named) {
    try {
      const models = await import(moduleOf(document.apiVersion));
      const Model = models[document.kind];
      if (Model === undefined) throw new Error("there is no such kind");
      new Model(document).validate();
    } catch (error) {
      findings.push(`${name}: ${document.apiVersion} ${document.kind}: ${error.message.split("\n")[0]}`);
    }
  }
  return findings;
}

/** Findings of the types, one line each. All documents at once, as the compiler takes its time. */
export function byType(named) {
  const folder = fs.mkdtempSync(path.join(here, "node_modules", ".strict-"));
  try {
    const lines = [];
    const where = [];
    for (const { name, document } of named) {
      const type = `import("${moduleOf(document.apiVersion)}").I${document.kind}`;
      lines.push(`export const d${lines.length}: ${type} = ${JSON.stringify(document)};`);
      where.push(`${name}: ${document.kind} ${document.metadata?.name}`);
    }
    fs.writeFileSync(path.join(folder, "documents.ts"), lines.join("\n") + "\n");
    const done = spawnSync(process.execPath, [
      require.resolve("typescript/bin/tsc"), "--noEmit", "--strict", "--skipLibCheck", "--pretty", "false",
      "--module", "nodenext", "--moduleResolution", "nodenext", "--target", "es2022", path.join(folder, "documents.ts"),
    ], { encoding: "utf8", cwd: here });
    if (done.status === 0) return [];
    const findings = [];
    for (const line of done.stdout.split("\n")) {
      const at = line.match(/documents\.ts\((\d+),\d+\): error TS\d+: (.*)/);
      if (at) findings.push(`${where[at[1] - 1]}: ${at[2]}`);
    }
    return findings.length > 0 ? findings : [done.stdout + done.stderr];
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
