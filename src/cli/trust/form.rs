//! How manifests are shown.

use portcullis_engine::trust::{KeyId, Manifest};
use serde_json::{Value, json};

/// As JSON.
pub(super) fn of_manifest(manifest: &Manifest) -> Value {
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "issued": manifest.issued.to_string(),
        "expires": manifest.expires.to_string(),
        "development": manifest.development,
        "host": manifest.host,
        "components": manifest.components,
        "min_revocation_version": manifest.min_revocation_version,
    })
}

/// For people, a fact a line.
pub(super) fn lines(manifest: &Manifest) -> Vec<String> {
    let host = &manifest.host;
    let mut lines = vec![
        format!("name        {}", manifest.name),
        format!("version     {}", manifest.version),
        format!("issued      {}", manifest.issued),
        format!("expires     {}", manifest.expires),
        format!("program     {} {} bytes", host.target, host.size),
        format!("sha256      {}", host.sha256),
        format!("components  {}", manifest.components.len()),
    ];
    let components = manifest.components.iter();
    lines.extend(components.map(|component| format!("            {component}")));
    if let Some(version) = manifest.min_revocation_version {
        lines.push(format!("needs revocation list {version} or later"));
    }
    lines
}

/// Keys in one line.
pub(super) fn keys(ids: impl IntoIterator<Item = KeyId>) -> String {
    let ids: Vec<_> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.join(" ")
}
