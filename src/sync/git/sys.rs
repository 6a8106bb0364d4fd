//! Leaves out OpenSSL's AES-GCM for AVX-512 with VAES: 690 KiB of unrolled code for fetches over HTTPS, which AES-NI serves.
//!
//! The linker takes an object out of `libcrypto.a` for a name that nobody else has. These are all names of
//! `aes-gcm-avx512.o` (crypto/modes/asm/aes-gcm-avx512.pl of OpenSSL 3.6). Where a later OpenSSL asks for one more, the
//! linker takes the object, and says of the others that they are there twice.
#![allow(unsafe_code)]

use nix::libc::c_int;

/// OpenSSL asks this before it takes any of the others (`cipher_aes_gcm_hw_aesni.inc` in providers/implementations/ciphers).
// SAFETY: the name is OpenSSL's, which declares it as int (void).
#[unsafe(no_mangle)]
extern "C" fn ossl_vaes_vpclmulqdq_capable() -> c_int {
    0
}

/// Nobody comes here: there is no such capability.
// SAFETY of the names that follow: they are OpenSSL's, and whatever arguments it passed, nothing is read and nothing returns.
fn never() -> ! {
    std::process::abort()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_aes_gcm_init_avx512() {
    never()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_aes_gcm_setiv_avx512() {
    never()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_aes_gcm_update_aad_avx512() {
    never()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_aes_gcm_encrypt_avx512() {
    never()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_aes_gcm_decrypt_avx512() {
    never()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_aes_gcm_finalize_avx512() {
    never()
}

#[unsafe(no_mangle)]
extern "C" fn ossl_gcm_gmult_avx512() {
    never()
}
