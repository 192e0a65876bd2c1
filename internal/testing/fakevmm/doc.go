//go:build linux

// Package fakevmm is a Firecracker without machines, for faults and versions that the real one won't give on demand.
//
// There are only four types. A [Release] is what a version has: its routes, and the fields of what goes over the wire. A [VMM] is one microVM as the API sees it;
// [VMM.Do] answers a request as that version does, refusals and their texts included. [Faults] are what is to go wrong. [Main] is the program: it takes
// Firecracker's command line and configuration file, refuses what Firecracker refuses with the same status and words, and serves the API and the vsock of a guest that echoes.
//
// # Caveats
//
// What it refuses, and how, is held against the real 1.12.1: on every route and every ordered pair of calls, and of configuration files and command lines by exit status, standard
// output and standard error. Other versions have the routes and fields of their tags (versions.json, made by tools/swagger), and the rules of 1.12.1 but for --enable-pci, CPU templates
// within configuration files, and files of logs and metrics that are made where they are missing.
//
// It looks into no file but kernels and CPU templates, opens no TAP, and connects to no vhost-user socket. Its snapshots hold what was configured, and a memory of holes; it loads no others. It has no memory and no CPU: what the real one refuses
// for the host's, or for a kernel that does not fit, it starts. Of CPU templates it reads no further than their lists' elements.
//
// Its log has fewer lines, and an error in it is told as on standard error. Of the arguments, --help, --metadata, --module, --show-level, --show-log-origin, both limits and what is
// about snapshots are refused; the seccomp filter, the boot timer and start times are ignored. A configuration file that is refused ends it without a panic, also while the API is asked.
package fakevmm
