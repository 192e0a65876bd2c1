// Package warmpool keeps machines of one snapshot ready, and hands each out once.
//
// There is only one type: a [Pool]. It restores machines with microvm.RestoreOptions.Hold, so that each has its own randomness and ids and nothing of it goes on; [Pool.Take] has the runtime claim
// one, and the pool makes another behind.
//
//	pool, err := warmpool.Open(ctx, rt, "python", "template/warm", &warmpool.Options{Size: 8})
//	defer pool.Close()
//	vm, evidence, err := pool.Take(ctx, "job-7", &microvm.ClaimOptions{Env: env})
//
// What waits are machines as any others: "pool-NAME-…", with the label [Label], listed, and counted by the limits. They outlive the process, and the next that opens the pool has them.
//
// # Caveats
//
// Several processes may have a pool of one name open, over one state directory: no machine is handed out twice, each of them sees to it that there are as many as its Size says, and what is beyond
// that is discarded. They should agree on the size and the snapshot; machines of an older snapshot than a process has are discarded, those of a newer one are left to who has that.
//
// What is left of a process that was killed while it made a machine, or handed one out, is taken away by Runtime.Recover.
//
// A claimed machine keeps the label, and is the caller's: to be stopped and destroyed as any other.
package warmpool
