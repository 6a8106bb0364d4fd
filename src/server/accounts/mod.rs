//! Tokens of service accounts: made for who asks (`kubectl create token`), bound to a pod, a Secret or a Node where that
//! is wanted, and good for as long as the account and what they are bound to are the same objects.
//!
//! - `claims` (pure): what a token says, and whether that still holds
//! - `bootstrap` (pure): tokens of nodes that have no certificate yet
//! - `lasting` (pure): tokens without an end, which live as long as the Secret that holds them
//! - `mint`: writes them
//! - `issue`: `serviceaccounts/NAME/token`
//! - `check`: who a token stands for; `TokenReview`; the public key for those who look for themselves

mod bootstrap;
pub mod check;
pub mod claims;
pub mod issue;
mod lasting;
pub mod mint;
