//go:build linux

// Package firecracker is the driver of package microvm for Firecracker: real microVMs on KVM.
//
//	rt, err := firecracker.FromEnv()
//	defer rt.Close()
//	vm, err := rt.Create(ctx, "job-7", microvm.Spec{Image: "/srv/images/debian-12.ext4"})
//	err = vm.Start(ctx, nil)
//
// There are only two types: [Options], and its part [Limits]. [New] and [FromEnv] return a *microvm.Runtime. Each verb is one readable sequence in the file
// of its name.
//
// Machines are jailed unless Options.Bare says otherwise: the official jailer is the init of a PID namespace of its own, as a user of its
// own, in a directory that is made afresh for every start and that this process never trusts afterwards.
//
// # Caveats
//
// All state is in Options.StateDir and Options.SocketDir. Any number of processes may use the same two at once.
//
// The driver must run as root, except with Options.Bare where access to /dev/kvm is enough.
//
// While no process of the driver lives a machine's console keeps the first MiB since then; what a guest writes beyond that is lost.
//
// Requires Firecracker 1.7 or later and Linux 5.15 or later.
package firecracker
