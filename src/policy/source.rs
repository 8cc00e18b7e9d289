//! The bundle's files in, a checked bundle out. The built-in profiles are compiled in and count
//! in the fingerprint like any other file.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use dayfly_domain::{
    BindingKind, BundlePart,
    bundle::{Bundle, BundleFile, CedarFile, Fingerprint, Lint, Problem, Surroundings, check, lints, tables},
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::sys::files::SourceFile;

/// What a bundle means depends on whose it is.
#[derive(Debug, Clone)]
pub struct BundleEnv {
    /// The issuer URL, without `/` at the end.
    pub issuer_url: String,
    /// Binding of the built-in target `broker`: `dpop`, in `dev` `bearer`.
    pub broker_binding: BindingKind,
}

/// Key sets and certificates that tables name, all together.
pub const EXTRAS_MAX_BYTES: usize = 64 << 20;

/// Profiles that come with the program, by the path they have in the fingerprint.
const BUILTIN: [(&str, &str); 16] = [
    ("builtin/certs/any-key.toml", include_str!("../../certs/profiles/any-key.toml")),
    ("builtin/certs/nameless.toml", include_str!("../../certs/profiles/nameless.toml")),
    ("builtin/certs/task.toml", include_str!("../../certs/profiles/task.toml")),
    ("builtin/profiles/aws.toml", include_str!("../../policies/profiles/aws.toml")),
    ("builtin/profiles/azure.toml", include_str!("../../policies/profiles/azure.toml")),
    ("builtin/profiles/bitbucket.toml", include_str!("../../policies/profiles/bitbucket.toml")),
    ("builtin/profiles/buildkite.toml", include_str!("../../policies/profiles/buildkite.toml")),
    ("builtin/profiles/circleci.toml", include_str!("../../policies/profiles/circleci.toml")),
    ("builtin/profiles/ear.toml", include_str!("../../policies/profiles/ear.toml")),
    ("builtin/profiles/github.toml", include_str!("../../policies/profiles/github.toml")),
    ("builtin/profiles/gitlab.toml", include_str!("../../policies/profiles/gitlab.toml")),
    ("builtin/profiles/google.toml", include_str!("../../policies/profiles/google.toml")),
    ("builtin/profiles/kubernetes.toml", include_str!("../../policies/profiles/kubernetes.toml")),
    ("builtin/profiles/oidc.toml", include_str!("../../policies/profiles/oidc.toml")),
    ("builtin/profiles/spiffe.toml", include_str!("../../policies/profiles/spiffe.toml")),
    ("builtin/profiles/terraform.toml", include_str!("../../policies/profiles/terraform.toml")),
];

/// Reads and checks a bundle: its `*.toml` and `*.cedar`, sorted or not. `read_extra` reads the
/// files that tables name (`jwks_file`, `ca_file`), by the path as written.
pub fn parse(
    files: &[SourceFile],
    env: &BundleEnv,
    read_extra: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
) -> Result<(Bundle, Vec<Lint>), Vec<Problem>> {
    let builtin = BUILTIN.iter().map(|(path, text)| (*path, text.as_bytes()));
    parse_with(builtin, files, env, read_extra)
}

/// Reads a bundle again that was kept (`Bundle::files`): with the built-in profiles of its time.
pub fn parse_kept(kept: &[BundleFile], env: &BundleEnv) -> Result<(Bundle, Vec<Lint>), Vec<Problem>> {
    let of = |part| kept.iter().filter(move |file| file.part == part);
    let builtin = of(BundlePart::Builtin).map(|file| (file.path.as_str(), &*file.bytes));
    let text = |file: &BundleFile| SourceFile { path: file.path.clone(), bytes: file.bytes.to_vec() };
    let files: Vec<_> = of(BundlePart::Text).map(text).collect();
    parse_with(builtin, &files, env, &mut |path| {
        let named = of(BundlePart::Named).find(|file| file.path == path);
        named.map(|file| file.bytes.to_vec()).ok_or_else(|| io::Error::other("it was not kept"))
    })
}

fn parse_with<'a>(
    builtin: impl Iterator<Item = (&'a str, &'a [u8])>,
    files: &[SourceFile],
    env: &BundleEnv,
    read_extra: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
) -> Result<(Bundle, Vec<Lint>), Vec<Problem>> {
    let mut source = Source::default();
    for (path, text) in builtin {
        let file = source.toml(path, text).unwrap_or_default();
        source.tables.merge_builtin(path, file);
        source.keep(BundlePart::Builtin, path, text);
    }
    files.iter().filter(|file| !file.path.starts_with("profiles/")).for_each(|file| source.file(file));
    source.read_extras(read_extra);
    if !source.problems.is_empty() {
        return Err(source.problems);
    }
    let fingerprint = source.fingerprint();
    let given = Surroundings {
        issuer_url: &env.issuer_url,
        broker_binding: env.broker_binding,
        fingerprint,
        extra: &source.extra,
        cedar: source.cedar,
    };
    let mut bundle = check(&source.tables, given)?;
    bundle.files = source.files;
    let lints = lints(&bundle);
    Ok((bundle, lints))
}

#[derive(Default)]
struct Source {
    tables: tables::Tables,
    cedar: Vec<CedarFile>,
    extra: BTreeMap<String, Arc<[u8]>>,
    /// Content hash by path.
    hashes: BTreeMap<String, [u8; 32]>,
    /// What the fingerprint is of.
    files: Vec<BundleFile>,
    problems: Vec<Problem>,
}

impl Source {
    fn keep(&mut self, part: BundlePart, path: &str, bytes: &[u8]) {
        self.files.push(BundleFile { part, path: path.to_owned(), bytes: bytes.into() });
    }

    fn file(&mut self, file: &SourceFile) {
        let SourceFile { path, bytes } = file;
        if ["builtin/profiles/", "builtin/certs/"].into_iter().any(|reserved| path.starts_with(reserved)) {
            let problem = Problem::new(path, "file", "has the path of a built-in profile");
            return self.problems.push(problem.help("put it in another folder"));
        }
        self.keep(BundlePart::Text, path, bytes);
        if path.ends_with(".toml") {
            if let Some(file) = self.toml(path, bytes) {
                self.tables.merge(path, file);
            }
        } else if path.ends_with(".cedar")
            && let Some(text) = self.text(path, bytes)
        {
            self.cedar.push(CedarFile { path: path.clone(), text });
        }
    }

    fn toml(&mut self, path: &str, bytes: &[u8]) -> Option<tables::File> {
        let text = self.text(path, bytes)?;
        match toml::from_str(&text) {
            Ok(file) => Some(file),
            Err(error) => {
                let at = error.span().map_or_else(|| "file".into(), |span| line_of(&text, span.start));
                let problem = Problem::new(path, at, error.message().trim_end());
                self.problems.push(match error.message().contains("missing field `purpose`") {
                    true => problem.help(
                        "a task's rows stand below its table, in the same file: `[task.NAME]`, then `[[task.NAME.allow]]`",
                    ),
                    false => problem,
                });
                None
            }
        }
    }

    fn text(&mut self, path: &str, bytes: &[u8]) -> Option<String> {
        let hash = hash(bytes);
        if self.hashes.insert(path.to_owned(), hash).is_some() {
            self.problems.push(Problem::new(path, "file", "is there twice"));
        }
        let text = String::from_utf8(bytes.to_vec());
        if text.is_err() {
            self.problems.push(Problem::new(path, "file", "is not UTF-8"));
        }
        text.ok()
    }

    fn read_extras(&mut self, read: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>) {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        for extra in self.tables.extra_files().into_iter().filter(|extra| seen.insert((extra.file, extra.jwks))) {
            let checked = read(extra.file).map_err(|error| format!("`{}`: {error}", extra.file));
            let checked = checked.and_then(|bytes| match extra.jwks {
                true => check_jwks(&bytes).map(|()| bytes),
                false => check_pem(&bytes).map(|()| bytes),
            });
            match checked {
                Ok(bytes)
                    if self.extra.values().map(|held| held.len()).sum::<usize>() + bytes.len() > EXTRAS_MAX_BYTES =>
                {
                    problems.push(Problem::new(extra.path, extra.at, "with it the named files are larger than 64 MiB"));
                    break;
                }
                Ok(bytes) => {
                    self.hashes.insert(extra.file.to_owned(), hash(&bytes));
                    let bytes: Arc<[u8]> = bytes.into();
                    let path = extra.file.to_owned();
                    self.files.push(BundleFile { part: BundlePart::Named, path: path.clone(), bytes: bytes.clone() });
                    self.extra.insert(path, bytes);
                }
                Err(what) => problems.push(Problem::new(extra.path, extra.at, what)),
            }
        }
        self.problems.append(&mut problems);
    }

    /// SHA-256 over lines of content hash and path, sorted by path: what `sha256sum` prints.
    fn fingerprint(&self) -> Fingerprint {
        let line = |(path, hash): (&String, &[u8; 32])| format!("{}  {path}\n", Fingerprint(*hash));
        let lines: String = self.hashes.iter().map(line).collect();
        Fingerprint(hash(lines.as_bytes()))
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn line_of(text: &str, offset: usize) -> String {
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}")
}

/// A JWK Set of public keys. The verifier reads the keys themselves.
fn check_jwks(bytes: &[u8]) -> Result<(), String> {
    let set: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| "is not JSON".to_owned())?;
    let keys = set.get("keys").and_then(|keys| keys.as_array()).ok_or("is not a JWK Set: it has no `keys`")?;
    if keys.is_empty() {
        return Err("is a JWK Set without a key".into());
    }
    let private = |key: &serde_json::Value| key.get("d").is_some() || key.get("k").is_some();
    if keys.iter().any(private) {
        return Err("holds a secret key: a bundle is public".into());
    }
    Ok(())
}

fn check_pem(bytes: &[u8]) -> Result<(), String> {
    let mut certificates = CertificateDer::pem_slice_iter(bytes).peekable();
    if certificates.peek().is_none() {
        return Err("holds no PEM certificate".into());
    }
    certificates.try_for_each(|one| one.map(drop).map_err(|_| "is not PEM".to_owned()))
}

#[cfg(test)]
mod tests {
    use dayfly_domain::bundle::KeySource;

    use super::*;
    use crate::policy::fixture::{SHOP, bundle, env, no_extras, source};

    fn fingerprint(files: &[SourceFile]) -> Fingerprint {
        parse(files, &env(), &mut no_extras).unwrap().0.fingerprint
    }

    #[test]
    fn the_fingerprint_is_of_content_and_path_not_of_order() {
        let cedar = "@id(\"a\") @purpose(\"b\") forbid (principal, action, resource);";
        let (shop, more) = (source("shop.toml", SHOP), source("more.cedar", cedar));
        let first = fingerprint(&[shop.clone(), more.clone()]);
        assert_eq!(first, fingerprint(&[more.clone(), shop.clone()]));
        assert_ne!(first, fingerprint(&[source("shop2.toml", SHOP), more.clone()]));
        assert_ne!(first, fingerprint(&[source("shop.toml", &format!("{SHOP}\n")), more]));
        assert_ne!(first, fingerprint(&[shop]));
    }

    #[test]
    fn profiles_at_the_top_are_not_read() {
        let nonsense = source("profiles/github.toml", "nonsense");
        assert_eq!(fingerprint(&[source("shop.toml", SHOP)]), fingerprint(&[source("shop.toml", SHOP), nonsense]));
        let said = bundle(&[("shop.toml", SHOP), ("team/profiles/x.toml", "nonsense")]).unwrap_err();
        assert!(said.starts_with("team/profiles/x.toml: line 1"), "{said}");
        let said = bundle(&[("shop.toml", SHOP), ("builtin/profiles/x.toml", "")]).unwrap_err();
        assert!(said.contains("path of a built-in profile"), "{said}");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let said =
            bundle(&[("shop.toml", &SHOP.replacen("per_job", "perjob", 1).replacen("deadline ", "dedline ", 1))]);
        let said = said.unwrap_err();
        assert!(said.contains("shop.toml: line ") && said.contains("`dedline`"), "{said}");
    }

    #[test]
    fn a_row_in_another_file_than_its_task_is_told_where_it_belongs() {
        let alone = "[[task.deploy-prod.allow]]\nid = \"x\"\nissuer = \"github\"\nclaims = { repository_id = \"5\" }\n";
        let said = bundle(&[("shop.toml", SHOP), ("web.toml", alone)]).unwrap_err();
        assert!(said.starts_with("web.toml: ") && said.contains("below its table, in the same file"), "{said}");
    }

    fn with_keys(keys: &str, content: &[u8]) -> Result<Bundle, String> {
        let text = SHOP.replacen("profile = \"github\"", &format!("profile = \"github\"\nkeys = {keys}"), 1);
        let parsed = parse(&[source("shop.toml", &text)], &env(), &mut |_| Ok(content.to_vec()));
        parsed.map(|(bundle, _)| bundle).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn pinned_keys_are_read_and_count() {
        let read = |jwks: &[u8]| with_keys("{ jwks_file = \"ci.json\" }", jwks);
        let jwks = b"{\"keys\":[{\"kty\":\"EC\"}]}";
        let one = read(jwks).unwrap();
        assert_eq!(one.issuers["github"].keys, KeySource::Pinned { jwks: jwks.as_slice().into() });
        let two = read(b"{\"keys\":[{\"kty\":\"EC\"} ]}").unwrap();
        assert_ne!(one.fingerprint, two.fingerprint);
        for (bad, what) in [("x", "not JSON"), ("{}", "no `keys`"), ("{\"keys\":[]}", "without a key")] {
            assert!(read(bad.as_bytes()).unwrap_err().contains(what), "{bad}");
        }
    }

    #[test]
    fn a_private_key_in_a_bundle() {
        for secret in ["{\"keys\":[{\"kty\":\"EC\",\"d\":\"x\"}]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"x\"}]}"] {
            let said = with_keys("{ jwks_file = \"ci.json\" }", secret.as_bytes()).unwrap_err();
            assert!(said.contains("issuer.github.keys.jwks_file: holds a secret key"), "{said}");
        }
    }

    #[test]
    fn a_ca_that_is_no_certificate() {
        let said = with_keys("{ discovery = true, ca_file = \"ca.pem\" }", b"hello").unwrap_err();
        assert!(said.contains("holds no PEM certificate"), "{said}");
    }
}
