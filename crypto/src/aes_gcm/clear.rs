//! Leaves no round key, key stream or hash behind in registers and on the stack.
//!
//! It is called once for all packets of a call, by the function that calls those that have the
//! packets: their frames were where the frame of [`stack`] comes to be.

use std::{arch::asm, mem::MaybeUninit};

use super::cpu::Form;

/// Bytes of stack that are wiped: more than any function here takes with those it calls, which is 3 KiB
/// if the compiler optimises.
const STACK: usize = if cfg!(debug_assertions) { 16384 } else { 4096 };
/// As [`STACK`], for [`chacha`](crate::chacha), whose functions take 8 KiB.
const DEEP_STACK: usize = if cfg!(debug_assertions) { 65536 } else { 10240 };

/// Wipes the vector registers, and the stack below the caller.
#[inline]
pub(super) fn clear(form: Form) {
    stack::<STACK>();
    match form {
        // SAFETY: the caller has used the form, so the CPU has the features.
        Form::Vaes512 => unsafe { registers_512() },
        // SAFETY: as above.
        Form::Vaes256 => unsafe { registers_256() },
    }
}

/// As [`clear`], after functions of [`chacha`](crate::chacha).
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn clear_deep() {
    stack::<DEEP_STACK>();
    registers_512();
}

#[inline(never)]
fn stack<const BYTES: usize>() {
    let area = MaybeUninit::<[u8; BYTES]>::zeroed();
    // SAFETY: there are no instructions. As they might read the area, it must have been zeroed.
    unsafe {
        asm!("/* {0} */", in(reg) area.as_ptr(), options(nostack, preserves_flags));
    }
}

#[target_feature(enable = "avx")]
fn registers_256() {
    // SAFETY: the registers are declared as changed.
    unsafe {
        asm!(
            "vzeroall",
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

#[target_feature(enable = "avx512f")]
fn registers_512() {
    // `vzeroall` leaves these alone.
    // SAFETY: the registers are declared as changed.
    unsafe {
        asm!(
            "vpxord zmm16, zmm16, zmm16",
            "vpxord zmm17, zmm17, zmm17",
            "vpxord zmm18, zmm18, zmm18",
            "vpxord zmm19, zmm19, zmm19",
            "vpxord zmm20, zmm20, zmm20",
            "vpxord zmm21, zmm21, zmm21",
            "vpxord zmm22, zmm22, zmm22",
            "vpxord zmm23, zmm23, zmm23",
            "vpxord zmm24, zmm24, zmm24",
            "vpxord zmm25, zmm25, zmm25",
            "vpxord zmm26, zmm26, zmm26",
            "vpxord zmm27, zmm27, zmm27",
            "vpxord zmm28, zmm28, zmm28",
            "vpxord zmm29, zmm29, zmm29",
            "vpxord zmm30, zmm30, zmm30",
            "vpxord zmm31, zmm31, zmm31",
            out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
            out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
            out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(nomem, nostack, preserves_flags),
        );
    }
    registers_256();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AAD_LEN, HEADER_LEN, Key, Layered, Packet, Seal, Suite, TAG_LEN, all_forms, open, seal,
        seal_layers,
    };

    const LENS: [usize; 8] = [0, 20, 64, 65, 300, 600, 1400, 5000];
    /// Bytes of stack that are searched.
    const BELOW: usize = 16 * 1024;

    /// What is left in the registers of 256 bits, whose halves are those of all, and on the stack.
    struct Left([u8; 16 * 32 + BELOW]);

    /// Calls it and looks at what it left, before anything else is called.
    #[inline(never)]
    fn left_by(mut work: impl FnMut()) -> Box<Left> {
        let mut left = Box::new(Left([0; 16 * 32 + BELOW]));
        let at = left.0.as_mut_ptr();
        work();
        // SAFETY: `left` has the room; the stack below the pointer was in use and is mapped.
        unsafe {
            asm!(
                "vmovdqu [rdi], ymm0",
                "vmovdqu [rdi + 32], ymm1",
                "vmovdqu [rdi + 64], ymm2",
                "vmovdqu [rdi + 96], ymm3",
                "vmovdqu [rdi + 128], ymm4",
                "vmovdqu [rdi + 160], ymm5",
                "vmovdqu [rdi + 192], ymm6",
                "vmovdqu [rdi + 224], ymm7",
                "vmovdqu [rdi + 256], ymm8",
                "vmovdqu [rdi + 288], ymm9",
                "vmovdqu [rdi + 320], ymm10",
                "vmovdqu [rdi + 352], ymm11",
                "vmovdqu [rdi + 384], ymm12",
                "vmovdqu [rdi + 416], ymm13",
                "vmovdqu [rdi + 448], ymm14",
                "vmovdqu [rdi + 480], ymm15",
                "add rdi, 512",
                "lea rsi, [rsp - {below}]",
                "rep movsb",
                below = const BELOW,
                inout("rdi") at => _, out("rsi") _, inout("rcx") BELOW => _,
                options(nostack),
            );
        }
        left
    }

    /// Blocks that nobody may find: they would give texts away. Complemented, for the search leaves them
    /// on the stack itself.
    fn secrets(key: &Key, nonce: [u8; 12], len: usize) -> Vec<[u8; 16]> {
        let mut stream = vec![0; len + TAG_LEN];
        assert!(key.seal_one(&nonce, &[], &mut stream));
        // The hash of nothing is zero, so the tag of an empty packet is the pad of all that have its nonce.
        let mut pad = [0; TAG_LEN];
        assert!(key.seal_one(&nonce, &[], &mut pad));
        let (stream, _) = stream[..len].as_chunks::<16>();
        let blocks = stream.iter().chain([&pad]);
        blocks.map(|block| block.map(|byte| !byte)).collect()
    }

    #[test]
    fn nothing_is_left_behind() {
        let kernels = || {
            all_forms()
                .into_iter()
                .filter(|it| it.name() == crate::aes_gcm::NAME)
        };
        if kernels().next().is_none() {
            eprintln!("SKIPPED: this CPU cannot run the kernel");
        }
        for kernel in kernels() {
            for suite in Suite::ALL {
                // The library's, where there is no form of our own.
                if suite == Suite::ChaCha20Poly1305 && !kernel.label().contains("ifma") {
                    continue;
                }
                let raw: Vec<u8> = (0..suite.key_len() as u8).map(|at| at ^ 0x6c).collect();
                let key = kernel.key(suite, &raw).unwrap();
                let (nonce, aad) = ([0x1d; 12], [0x2e; AAD_LEN]);
                let mut secret = vec![raw.first_chunk::<16>().unwrap().map(|byte| !byte)];
                // A word in all lanes.
                for word in raw.as_chunks::<4>().0 {
                    secret.push(std::array::from_fn(|at| !word[at % 4]));
                }
                for len in LENS {
                    secret.extend(secrets(&key, nonce, len));
                }
                let find = |left: &Left, what: &str| {
                    for window in left.0.windows(16) {
                        let is = |block: &[u8; 16]| {
                            let mut bytes = block.iter().zip(window);
                            bytes.all(|(byte, found)| byte ^ found == 0xff)
                        };
                        assert!(!secret.iter().any(is), "{} {suite}: {what}", kernel.label());
                    }
                };
                let mut buffers = LENS.map(|len| vec![0x3f; HEADER_LEN + len + 2 * TAG_LEN]);
                for (step, what) in [(seal as fn(&mut [Packet<'_>]), "sealed"), (open, "opened")] {
                    let mut batch: Vec<_> = buffers
                        .iter_mut()
                        .map(|data| Packet::new(&key, nonce, aad, &mut data[..]))
                        .collect();
                    find(&left_by(|| step(&mut batch)), what);
                }
                let circuit = Seal {
                    key: &key,
                    nonce,
                    aad,
                };
                let mut batch: Vec<_> = buffers
                    .iter_mut()
                    .map(|data| Layered {
                        circuit: Some(circuit),
                        link: Packet::new(&key, nonce, aad, data),
                    })
                    .collect();
                find(&left_by(|| seal_layers(&mut batch)), "sealed twice");
                find(&left_by(|| drop(kernel.key(suite, &raw))), "made a key");
            }
        }
    }
}
