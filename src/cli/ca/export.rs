//! `dayfly ca export`: what verifiers are given, from the broker.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    cli::{api::Api, args::CaExportArgs, door::Door, failure::Failure, session::Session},
    mint::pki::pem,
    sys::files,
};

pub async fn run(args: &CaExportArgs, session: &Session) -> Result<(), Failure> {
    let door = Door::find(&args.door, &session.vars)?;
    let text = match args.what.as_str() {
        // What everybody may know takes no token.
        "spiffe" => format!(
            "{}\n",
            String::from_utf8_lossy(&document(&door.api(&session.vars, None)?, "/spiffe/bundle").await?)
        ),
        "root" => roots(&door.api(&session.vars, None)?).await?,
        "all" => all(&door.operator(&session.vars)?).await?,
        id => certificate(&door.api(&session.vars, None)?, id).await?,
    };
    match &args.out {
        None => session.screen.data(&text),
        Some(file) => files::write_atomic(file, text.as_bytes(), 0o644)
            .map_err(|error| Failure::failed(format!("`{}` cannot be written", file.display())).because(error)),
    }
}

async fn roots(api: &Api) -> Result<String, Failure> {
    let bundle = document(api, "/spiffe/bundle").await?;
    let strange = || Failure::failed("the broker's trust bundle cannot be read");
    let bundle: Value = serde_json::from_slice(&bundle).map_err(|_| strange())?;
    let keys = bundle["keys"].as_array().ok_or_else(strange)?;
    let der = |key: &Value| key["x5c"][0].as_str().and_then(|text| STANDARD.decode(text).ok());
    let pems = keys.iter().map(|key| der(key).map(|der| pem("CERTIFICATE", &der)).ok_or_else(strange));
    pems.collect()
}

async fn all(api: &Api) -> Result<String, Failure> {
    let cas = api.cas().await.map_err(|error| error.failure("the CAs cannot be listed"))?;
    let mut text = String::new();
    for ca in cas {
        text.push_str(&certificate(api, &ca.id).await?);
    }
    Ok(text)
}

async fn certificate(api: &Api, id: &str) -> Result<String, Failure> {
    let hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    if !id.bytes().all(hex) || id.is_empty() {
        return Err(Failure::usage(format!("`{id}` is neither `root`, `all` nor `spiffe`, nor the id of a CA")));
    }
    Ok(pem("CERTIFICATE", &document(api, &format!("/pki/{id}.cer")).await?))
}

async fn document(api: &Api, path: &str) -> Result<Vec<u8>, Failure> {
    api.document(path).await.map_err(|error| error.failure("it cannot be fetched"))
}
