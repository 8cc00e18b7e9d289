//! Clusters and clouds: a mounted token, or the metadata server of the machine. They come after CI,
//! whose runners are such machines.

use super::{Look, Source, Surroundings, fetch::Server, is_set, no_token, not_set, shown_audience};

/// What Azure writes into the firmware of every machine it runs.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
const GOOGLE_NAMES: [&str; 2] = ["Google", "Google Compute Engine"];
const AWS_VENDOR: &str = "Amazon EC2";
const AWS_MARKS: [&str; 3] =
    ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_LAMBDA_FUNCTION_NAME"];

/// Recognised; its socket is not spoken to yet.
pub fn spiffe(around: &Surroundings<'_>) -> Look {
    const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
    if around.vars.get(SOCKET).is_none() {
        return Look::Absent(not_set(SOCKET));
    }
    let help = format!(
        "fetch a JWT-SVID and give it on stdin, or unset the variable\n\
         spire-agent api fetch jwt -audience {} -output json | jq -r '.[0].svids[0].svid' | dayfly token --evidence-file - …",
        shown_audience(around)
    );
    no_token("the SPIFFE Workload API is not spoken to yet", is_set(SOCKET), help)
}

pub fn kubernetes(around: &Surroundings<'_>) -> Look {
    const POD: &str = "KUBERNETES_SERVICE_HOST";
    if let Some(path) = &around.machine.mounted_token {
        let why = format!("there is `{}`", path.display());
        return Look::Found(Source::File { path: path.clone(), origin: "kubernetes" }, why);
    }
    if around.vars.get(POD).is_none() {
        return Look::Absent(format!("{} and there is no `{}`", not_set(POD), super::machine::MOUNTED_TOKEN));
    }
    // SECURITY: tokens that clouds have mounted are for those clouds; whoever holds one is the pod
    // there. They are never sent to a broker: `a_token_made_for_a_cloud_is_not_sent_to_a_broker`.
    let why = format!("{}, but there is no `{}`", is_set(POD), super::machine::MOUNTED_TOKEN);
    no_token("this pod has no identity token for the broker", why, pod_lines(shown_audience(around)))
}

/// Recognised; its requests need a signature that is not made here.
pub fn aws(around: &Surroundings<'_>) -> Look {
    let mark = AWS_MARKS.into_iter().find(|name| around.vars.get(name).is_some());
    let is_machine = around.machine.vendor.as_deref() == Some(AWS_VENDOR);
    let why = match mark {
        Some(mark) => is_set(mark),
        None if is_machine => format!("the machine's vendor is `{AWS_VENDOR}`"),
        None => return Look::Absent(format!("the machine's vendor is not `{AWS_VENDOR}`")),
    };
    let help = format!(
        "give the token on stdin; the account must have outbound identity federation enabled\n\
         aws sts get-web-identity-token --signing-algorithm RS256 --audience {} \
         --query WebIdentityToken --output text | dayfly token --evidence-file - …",
        shown_audience(around)
    );
    no_token("AWS is not asked for a token yet", why, help)
}

pub fn google(around: &Surroundings<'_>) -> Look {
    match around.machine.product_name.as_deref().filter(|name| GOOGLE_NAMES.contains(name)) {
        Some(name) => Look::Found(Source::Metadata(Server::google()), format!("the machine is a `{name}`")),
        None => Look::Absent("the machine is no `Google Compute Engine`".to_owned()),
    }
}

pub fn azure(around: &Surroundings<'_>) -> Look {
    if around.machine.asset_tag.as_deref() != Some(AZURE_TAG) {
        return Look::Absent("the machine's asset tag is not Azure's".to_owned());
    }
    let server = Server::azure(around.vars.get("AZURE_CLIENT_ID"));
    Look::Found(Source::Metadata(server), "the machine's asset tag is Azure's".to_owned())
}

fn pod_lines(audience: &str) -> String {
    format!(
        "add these lines to the pod, and mount the volume at /var/run/secrets/dayfly\n\
         volumes:\n\
         - name: dayfly\n\
         \x20 projected:\n\
         \x20   sources:\n\
         \x20   - serviceAccountToken: {{ path: token, audience: \"{audience}\", expirationSeconds: 600 }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        identity::{Machine, find},
        session::Vars,
    };

    fn found(pairs: &[(&str, &str)], machine: &Machine) -> Result<Source, String> {
        let vars = Vars::given(pairs);
        let around = Surroundings { vars: &vars, machine, audience: Some("https://b.example") };
        find(None, &around).map_err(|failure| failure.text("error"))
    }

    #[test]
    fn a_mounted_token_is_a_file_that_is_read_each_time() {
        let machine = Machine { mounted_token: Some("/m/token".into()), ..Machine::default() };
        let source = found(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], &machine).unwrap();
        assert!(matches!(source, Source::File { origin: "kubernetes", .. }));
        let said = found(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], &Machine::default()).unwrap_err();
        assert!(said.contains("\n    - serviceAccountToken: { path: token, audience: \"https://b.example\""), "{said}");
    }

    #[test]
    fn a_token_made_for_a_cloud_is_not_sent_to_a_broker() {
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/tokens/azure-identity-token"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"),
        ];
        assert!(found(&pod, &Machine::default()).unwrap_err().contains("no identity token for the broker"));
        assert!(found(&pod[1..], &Machine::default()).unwrap_err().contains("nothing here says who is asking"));
    }

    #[test]
    fn the_firmware_names_the_cloud_in_exact_words() {
        let named = |product: &str| Machine { product_name: Some(product.to_owned()), ..Machine::default() };
        for name in GOOGLE_NAMES {
            assert!(matches!(found(&[], &named(name)), Ok(Source::Metadata(_))), "{name}");
        }
        for name in ["google", "Google ", "Google Compute Engine 2", ""] {
            assert!(found(&[], &named(name)).is_err(), "{name}");
        }
        let azure = Machine { asset_tag: Some(AZURE_TAG.to_owned()), ..Machine::default() };
        assert!(matches!(found(&[], &azure), Ok(Source::Metadata(_))));
    }

    #[test]
    fn a_runner_on_a_cloud_is_a_runner() {
        let machine = Machine { product_name: Some("Google".to_owned()), ..Machine::default() };
        assert!(found(&[("GITLAB_CI", "true")], &machine).unwrap_err().contains("id_tokens:"));
    }

    #[test]
    fn what_is_recognised_and_not_spoken_to_says_what_to_type() {
        let amazon = Machine { vendor: Some(AWS_VENDOR.to_owned()), ..Machine::default() };
        for (pairs, machine, part) in [
            (vec![], amazon, "aws sts get-web-identity-token"),
            (vec![("AWS_LAMBDA_FUNCTION_NAME", "f")], Machine::default(), "aws sts get-web-identity-token"),
            (vec![("SPIFFE_ENDPOINT_SOCKET", "unix:///s")], Machine::default(), "spire-agent api fetch jwt"),
        ] {
            let said = found(&pairs, &machine).unwrap_err();
            assert!(said.contains(part) && said.contains("--evidence-file -"), "{said}");
        }
    }
}
