//go:build linux

// Package fakevmm is a Firecracker without machines, for faults and versions that the real one won't give on demand.
//
// There are only four types. A [Release] is what a version has: its routes, and the fields of what goes over the wire. A [VMM] is one microVM as the API sees it;
// [VMM.Do] answers a request as that version does, refusals and their texts included. [Faults] are what is to go wrong. [Main] is the program: it takes
// Firecracker's command line, reads a configuration file as laxly, and serves the API and the vsock of a guest that echoes.
//
// # Caveats
//
// What it refuses, and how, is held against the real 1.12.1 on every route and every ordered pair of calls. Other versions have the routes and fields of their tags (versions.json,
// made by tools/swagger), and the rules of 1.12.1.
//
// It looks at no file but the kernel's, opens no TAP, and writes no snapshot.
package fakevmm
