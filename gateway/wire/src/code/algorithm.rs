//! Transforms: their types, and the algorithms of each (RFC 7296 3.3.2).

use core::fmt;

wire_code! {
    /// Transform type (RFC 7296 3.3.2).
    TransformType(u8) {
        /// Encryption algorithm.
        ENCR = 1,
        /// Pseudo-random function.
        PRF = 2,
        /// Integrity algorithm.
        INTEG = 3,
        /// Key exchange method (named Diffie-Hellman group before RFC 9370).
        KE = 4,
        /// Extended sequence numbers.
        ESN = 5,
        /// First additional key exchange, RFC 9370.
        ADDKE1 = 6,
        /// Second additional key exchange.
        ADDKE2 = 7,
        /// Third additional key exchange.
        ADDKE3 = 8,
        /// Fourth additional key exchange.
        ADDKE4 = 9,
        /// Fifth additional key exchange.
        ADDKE5 = 10,
        /// Sixth additional key exchange.
        ADDKE6 = 11,
        /// Seventh additional key exchange.
        ADDKE7 = 12,
    }
}

wire_code! {
    /// Encryption algorithm, transform type 1.
    EncrId(u16) {
        /// Triple DES, RFC 2451.
        TRIPLE_DES = 3,
        /// No encryption, RFC 2410.
        NULL = 11,
        /// AES in CBC, RFC 3602.
        AES_CBC = 12,
        /// AES in counter mode, RFC 3686.
        AES_CTR = 13,
        /// AES-CCM with an 8-octet ICV, RFC 4309.
        AES_CCM_8 = 14,
        /// AES-CCM with a 16-octet ICV, RFC 4309.
        AES_CCM_16 = 16,
        /// AES-GCM with an 8-octet ICV, RFC 4106.
        AES_GCM_8 = 18,
        /// AES-GCM with a 16-octet ICV, RFC 4106.
        AES_GCM_16 = 20,
        /// RFC 7634.
        CHACHA20_POLY1305 = 28,
    }
}

wire_code! {
    /// Pseudo-random function, transform type 2.
    PrfId(u16) {
        /// RFC 2104.
        HMAC_MD5 = 1,
        /// RFC 2104.
        HMAC_SHA1 = 2,
        /// RFC 4434.
        AES128_XCBC = 4,
        /// RFC 4868.
        HMAC_SHA2_256 = 5,
        /// RFC 4868.
        HMAC_SHA2_384 = 6,
        /// RFC 4868.
        HMAC_SHA2_512 = 7,
    }
}

wire_code! {
    /// Integrity algorithm, transform type 3.
    IntegId(u16) {
        /// None: the cipher authenticates by itself.
        NONE = 0,
        /// RFC 2403.
        HMAC_MD5_96 = 1,
        /// RFC 2404.
        HMAC_SHA1_96 = 2,
        /// RFC 3566.
        AES_XCBC_96 = 5,
        /// RFC 4868.
        HMAC_SHA2_256_128 = 12,
        /// RFC 4868.
        HMAC_SHA2_384_192 = 13,
        /// RFC 4868.
        HMAC_SHA2_512_256 = 14,
    }
}

wire_code! {
    /// Key exchange method, transform type 4.
    KeMethod(u16) {
        /// None.
        NONE = 0,
        /// RFC 7296 B.2.
        MODP_1024 = 2,
        /// RFC 3526.
        MODP_1536 = 5,
        /// RFC 3526.
        MODP_2048 = 14,
        /// RFC 3526.
        MODP_3072 = 15,
        /// RFC 3526.
        MODP_4096 = 16,
        /// RFC 5903.
        ECP_256 = 19,
        /// RFC 5903.
        ECP_384 = 20,
        /// RFC 5903.
        ECP_521 = 21,
        /// RFC 8031.
        CURVE25519 = 31,
        /// RFC 8031.
        CURVE448 = 32,
        /// ML-KEM, RFC 9370 and IANA.
        ML_KEM_512 = 35,
        /// ML-KEM, RFC 9370 and IANA.
        ML_KEM_768 = 36,
        /// ML-KEM, RFC 9370 and IANA.
        ML_KEM_1024 = 37,
    }
}

wire_code! {
    /// Extended sequence numbers, transform type 5.
    EsnId(u16) {
        /// 32-bit sequence numbers.
        NO = 0,
        /// 64-bit sequence numbers.
        YES = 1,
    }
}
