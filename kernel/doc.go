// Package kernel prepares Linux kernels for Firecracker: the uncompressed image, the modules a guest needs, and the initial RAM file system that carries them.
//
// There are only a few types. A [Deb] is a distribution's package of a kernel. [Modules] is a tree of modules, of which [Modules.Resolve] puts each [Module] in order.
// [Initramfs] says what [WriteInitramfs] writes; a [Cpio] is what it writes with. Two functions are of images: [Extract] takes the kernel out of what distributions ship,
// and [Release] says which it is. [Check] says, by a [Finding] each, what a kernel's configuration lacks; [Config] is the one that is built in.
//
// # Caveats
//
// Firecracker up to 1.16 boots no bzImage on x86_64: it wants the ELF file in it.
//
// A module is only good for the kernel that it was built with. The tree says which: its directory is named after the release.
//
// What is read may be anybody's: it is bounded in size, and in what its decompression takes.
package kernel
