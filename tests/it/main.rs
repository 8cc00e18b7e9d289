//! The one integration-test binary: a module per story.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests run as a user's machine does"
)]

mod archive;
mod attested;
mod bench;
mod bound_job;
mod bundle_life;
mod bundle_page;
mod by_file;
mod by_list;
mod ca;
mod cert_envoy;
mod cert_faults;
mod cert_files;
mod cert_nginx;
mod cert_postgres;
mod certified;
mod certs;
mod ci_wrapper;
mod claims;
mod clocks;
mod conflicts;
mod corpus;
mod crl;
mod crowds;
mod deadline;
mod demo;
mod deploy;
mod dev;
mod doctor;
mod dpop;
mod durable;
mod ends;
mod every_end;
mod evidence;
mod exec;
mod explain;
mod folders;
mod follow;
mod foreign;
mod foreign_client;
mod fuzzing;
mod grants;
mod handles;
mod held;
mod hold;
mod hold_lost;
mod hostility;
mod idp;
mod interop;
mod lists;
mod mass;
mod mass_record;
mod mtls;
mod operate;
mod outside;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod process;
mod profiles;
mod quotas;
mod races;
mod reference;
mod refusals;
mod renewal;
mod restarts;
mod reviews;
mod revoke_where;
mod rights;
mod secrets;
mod served;
mod servers;
mod spiffe;
mod startable;
mod starter;
mod svid;
mod swaps;
mod taint;
mod tampering;
mod thin_path;
mod threats;
mod threats_doc;
mod tidy;
mod trees;
mod trust;
mod usage;
mod verifiers;
mod visibility;
mod wire;
mod world;
mod x509;
mod x509_interop;
mod x509_lint;
mod x509_story;
