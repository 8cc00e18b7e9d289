//! Whether a CA certificate is what it should be: read again by other code than built it, before anything is
//! signed with it. In: certificates. Out: nothing, or what is wrong.

use dayfly_domain::UnixMs;
use x509_parser::{
    extensions::{GeneralName, GeneralSubtree, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};

use super::{
    ca::{Ca, CaId, ISSUING},
    signer::{CaSigner, PkiError},
};

/// A clock that is behind by this much still takes a new CA.
const BEFORE_S: i64 = 60;
const PROOF: &[u8] = b"dayfly: this key is that of this certificate";

/// An issuing CA of ours below `area`, before it is used.
// SECURITY: `t_134_an_invalid_new_issuer_never_becomes_active_and_issuing_goes_on_under_the_old`.
pub fn admit_issuing(ca: &Ca, area: &Ca, now: UnixMs) -> Result<(), PkiError> {
    let (below, above) = (read(ca.der())?, read(area.der())?);
    is_ca(&below, Some(0))?;
    follows(&below, &above)?;
    proven(ca.signer(), &below)?;
    let (from, until) = window(&below);
    wrong(until > window(&above).1, "it outlives the area CA")?;
    wrong(until.as_s() - from.as_s() + 1 > ISSUING.life_s, "it lives too long")?;
    wrong(now < from || now.as_s() > until.as_s(), "it is not in force")?;
    wrong(names_uris(&below), "it constrains URIs")
}

/// An area CA with what is above it, up to the root, as it comes from a ceremony or a company's CA, and its key.
pub fn admit_area(chain: &[&[u8]], key: &dyn CaSigner, now: Option<UnixMs>) -> Result<(), PkiError> {
    let area = chain.first().ok_or_else(|| refused("there is none"))?;
    proven(key, &read(area)?)?;
    admit_chain(chain, now)
}

/// The same of the certificates alone. `now`: it is about to be taken in, and must be in force; later its health
/// is told, and a clock that is wrong at a start keeps no broker from starting.
pub fn admit_chain(chain: &[&[u8]], now: Option<UnixMs>) -> Result<(), PkiError> {
    let read = chain.iter().map(|der| read(der)).collect::<Result<Vec<_>, _>>()?;
    let root = match read.last() {
        Some(root) if read.len() > 1 => root,
        _ => return Err(refused("the chain is the area CA, what is above it, and the root last")),
    };
    // Each CA allows at least so many below it as there are.
    for (depth, ca) in (1u32..).zip(&read) {
        is_ca(ca, Some(depth))?;
        let (from, until) = window(ca);
        let out = |now: UnixMs| now.plus_s(BEFORE_S) < from || now.as_s() > until.as_s();
        wrong(now.is_some_and(out), "it is not in force")?;
        wrong(names_uris(ca), "it constrains URIs, and there are verifiers that refuse every chain that does")?;
        carries_leaves(ca)?;
    }
    let outlives = |pair: &[X509Certificate<'_>]| window(&pair[0]).1 > window(&pair[1]).1;
    wrong(read.windows(2).any(outlives), "the CA above it ends before it")?;
    read.windows(2).try_for_each(|pair| follows(&pair[0], &pair[1]))?;
    follows(root, root)
}

/// `below`: how many CAs may follow at least; of an issuing CA, exactly none.
fn is_ca(ca: &X509Certificate<'_>, below: Option<u32>) -> Result<(), PkiError> {
    let basic = ca.basic_constraints().ok().flatten().filter(|basic| basic.critical && basic.value.ca);
    let basic = basic.ok_or_else(|| refused("basicConstraints do not say, critically, that it is a CA"))?;
    let enough = match (below, basic.value.path_len_constraint) {
        (Some(0), found) => found == Some(0),
        (Some(below), Some(found)) => found >= below,
        _ => true,
    };
    wrong(!enough, "its path length does not fit its place")?;
    let usage = ca.key_usage().ok().flatten().filter(|usage| usage.critical);
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign() && usage.value.crl_sign());
    wrong(!signs, "keyUsage does not say, critically, that it signs certificates and CRLs")?;
    CaId::of_certificate(ca.as_ref()).map(drop)
}

/// What stands in it lets leaves of ours be believed: they are for clients and servers, and their names and those
/// of issuing CAs are in no directory.
// SECURITY: `a_chain_that_servers_would_refuse_is_refused_at_the_import`.
fn carries_leaves(ca: &X509Certificate<'_>) -> Result<(), PkiError> {
    let usage = ca.extended_key_usage().map_err(|_| refused("its extended key usage cannot be read"))?;
    let both = usage.is_none_or(|usage| usage.value.any || usage.value.client_auth && usage.value.server_auth);
    wrong(!both, "its extended key usage leaves out clients or servers")?;
    let constraints = ca.name_constraints().map_err(|_| refused("its name constraints cannot be read"))?;
    let trees = constraints.map(|found| (&found.value.permitted_subtrees, &found.value.excluded_subtrees));
    let Some((permitted, excluded)) = trees else { return Ok(()) };
    // How many parts the names of a directory begin with; none stands for all names.
    let parts = |tree: &GeneralSubtree<'_>| match &tree.base {
        GeneralName::DirectoryName(name) => Some(name.iter().count()),
        _ => None,
    };
    let narrow = permitted.iter().flatten().filter_map(parts).any(|parts| parts > 0);
    let nothing = excluded.iter().flatten().filter_map(parts).any(|parts| parts == 0);
    wrong(narrow || nothing, "it constrains the names of subjects, and those of ours are `CN=...` alone")
}

/// Signed by `above`, and naming it.
fn follows(ca: &X509Certificate<'_>, above: &X509Certificate<'_>) -> Result<(), PkiError> {
    wrong(ca.issuer().as_raw() != above.subject().as_raw(), "its issuer is not the subject of the CA above")?;
    let named = ca.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    let own = CaId::of_certificate(above.as_ref())?;
    let named = named.map(|octets| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>());
    let is_root = ca.as_ref() == above.as_ref();
    wrong(named.is_none() && !is_root, "it has no authority key identifier")?;
    wrong(
        named.is_some_and(|named| named != own.as_str()),
        "its authority key identifier is not the key of the CA above",
    )?;
    let signed = ca.verify_signature(Some(above.public_key()));
    signed.map_err(|_| refused("the CA above did not sign it"))
}

/// The key signs, and what it signs verifies with the certificate.
fn proven(key: &dyn CaSigner, ca: &X509Certificate<'_>) -> Result<(), PkiError> {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    let point = ca.public_key().subject_public_key.data.as_ref();
    let signed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(PROOF, &key.sign(PROOF)?);
    signed.map_err(|_| refused("its key is not the one that we have"))
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let (rest, read) = X509Certificate::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
    wrong(!rest.is_empty(), "something follows the certificate")?;
    Ok(read)
}

fn window(ca: &X509Certificate<'_>) -> (UnixMs, UnixMs) {
    let at = |time: x509_parser::time::ASN1Time| UnixMs::from_s(time.timestamp());
    (at(ca.validity().not_before), at(ca.validity().not_after))
}

fn names_uris(ca: &X509Certificate<'_>) -> bool {
    let Ok(Some(constraints)) = ca.name_constraints() else { return false };
    let trees = [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
    trees.into_iter().flatten().flatten().any(|tree| matches!(tree.base, GeneralName::URI(_)))
}

fn refused(what: &str) -> PkiError {
    PkiError::Refused(format!("a CA certificate is not as it should be: {what}"))
}

fn wrong(is_so: bool, what: &str) -> Result<(), PkiError> {
    if is_so { Err(refused(what)) } else { Ok(()) }
}
