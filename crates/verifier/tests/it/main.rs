//! Every way to cheat the gate that happened elsewhere, by the number of its threat.

#[cfg(feature = "online")]
mod broker;
mod claims;
#[cfg(feature = "online")]
mod example;
mod jose;
mod keys;
#[cfg(feature = "online")]
mod online;
mod support;
mod task;
