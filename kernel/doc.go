// Package kernel prepares Linux kernels for Firecracker: the uncompressed image, the modules a guest needs, and the initial RAM file system that carries them.
//
// There are only three types. [Extract] is a function: it takes the kernel out of what distributions ship. [Modules] is a tree of modules, which [Modules.Resolve]
// puts in order. [Initramfs] says what [WriteInitramfs] writes; a [Cpio] is what it writes with.
//
// # Caveats
//
// Firecracker up to 1.16 boots no bzImage on x86_64: it wants the ELF file in it.
//
// A module is only good for the kernel that it was built with. The tree says which: its directory is named after the release.
package kernel
