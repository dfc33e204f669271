//! Where the program begins, in the release for Linux (`release/link`).
//!
//! A program that may be loaded at any address has many addresses in its data: of
//! functions, of texts. They are set before anything else runs, and each page that has
//! one is fetched when the first is written to it. To be handed all of these pages at
//! once takes half of the time, and that is a tenth of a run from the cache. So this asks
//! the system for them with `MADV_POPULATE_WRITE`, and goes on where every program
//! begins. A system that does not know that, as Linux before 5.14, says so and no more.
//!
//! Nothing is set up when this runs, so it is no Rust: it reads where the data is from
//! the program's own headers (System V ABI, chapter 5), and leaves the stack and `rdx`,
//! which the C library looks at, as they are.

#![expect(unsafe_code, reason = "what runs before Rust can is no Rust")]

std::arch::global_asm!(
    ".pushsection .text.tmpcred_entry, \"ax\", @progbits",
    ".globl tmpcred_entry",
    ".type tmpcred_entry, @function",
    "tmpcred_entry:",
    "mov r12, rdx",
    "lea r8, [rip + __ehdr_start]",
    // e_phoff and e_phnum: where the headers of the segments are, and how many.
    "mov r9, [r8 + 32]",
    "add r9, r8",
    "movzx r10d, word ptr [r8 + 56]",
    "2:",
    // p_type is PT_LOAD, and p_flags has PF_W.
    "cmp dword ptr [r9], 1",
    "jne 3f",
    "test dword ptr [r9 + 4], 2",
    "jz 3f",
    // From the beginning of the page with p_vaddr, to the end of what is in the file.
    "mov rdi, [r9 + 16]",
    "add rdi, r8",
    "mov rsi, [r9 + 32]",
    "add rsi, rdi",
    "and rdi, -4096",
    "sub rsi, rdi",
    "mov edx, {populate}",
    "mov eax, {madvise}",
    "syscall",
    "3:",
    "add r9, 56",
    "dec r10d",
    "jnz 2b",
    "mov rdx, r12",
    "jmp _start",
    ".size tmpcred_entry, . - tmpcred_entry",
    ".popsection",
    populate = const libc::MADV_POPULATE_WRITE,
    madvise = const libc::SYS_madvise,
);
