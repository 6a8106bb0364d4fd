//! tls

/// Makes ring the process' one crypto provider. Safe to call again.
pub fn install_provider() {
    // An error says that one is installed already: ours, there is no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
