//! The name under which the outside knows a workload in a task.

use dayfly_domain::Workload;
use ring::digest;

const MAX_BYTES: usize = 127;

/// `spiffe://<trust_domain>/<template>/<issuer name>/<ids...>`, with `/untrusted` where it is so.
/// The template is in it because servers authorise by name. At most 127 bytes (what clouds take as
/// a subject): past that the ids become a 128-bit hash, never a truncation.
pub fn subject(trust_domain: &str, template: &str, workload: &Workload) -> String {
    let tail = if workload.untrusted { "/untrusted" } else { "" };
    let full = format!("spiffe://{trust_domain}/{template}/{}{tail}", workload.principal);
    if full.len() <= MAX_BYTES {
        return full;
    }
    let hash: String = digest::digest(&digest::SHA256, full.as_bytes()).as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let readable = [
        format!("spiffe://{trust_domain}/{template}/{}/{hash}{tail}", workload.issuer),
        format!("spiffe://{trust_domain}/{template}/{hash}{tail}"),
        format!("spiffe://{trust_domain}/{hash}{tail}"),
    ];
    readable.into_iter().find(|name| name.len() <= MAX_BYTES).unwrap_or_else(|| format!("spiffe://{hash}{tail}"))
}

#[cfg(test)]
mod tests {
    use dayfly_domain::Claims;

    use super::*;

    fn workload(principal: &str, untrusted: bool) -> Workload {
        let name = |text: &str| text.parse().unwrap();
        Workload {
            issuer: name("github"),
            profile: name("github"),
            principal: principal.into(),
            untrusted,
            job: None,
            claims: Claims::new(),
        }
    }

    #[test]
    fn names_are_readable_and_say_when_untrusted() {
        let name = subject("example.org", "deploy", &workload("github/4411/88120", true));
        assert_eq!(name, "spiffe://example.org/deploy/github/4411/88120/untrusted");
    }

    #[test]
    fn long_names_are_hashed_never_cut() {
        let long = |last: &str| workload(&format!("github/{}{last}", "9".repeat(140)), false);
        let (one, two) = (subject("example.org", "deploy", &long("1")), subject("example.org", "deploy", &long("2")));
        assert!(one.len() <= MAX_BYTES && one != two && one.starts_with("spiffe://example.org/deploy/github/"));
    }
}
