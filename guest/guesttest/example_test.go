//go:build linux

package guesttest_test

import (
	"context"
	"fmt"
	"net"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/guest/guesttest"
	"github.com/tangle-network/microvm-runtime/inmemory"
)

// job is what is to be tested: it knows nothing of doubles.
func job(ctx context.Context, rt *microvm.Runtime, script string) (out []byte, err error) {
	vm, err := rt.Create(ctx, "job-7", microvm.Spec{Image: "debian:12"})
	if err != nil {
		return nil, err
	}
	defer vm.Destroy(context.WithoutCancel(ctx))
	if err := vm.Start(ctx, nil); err != nil {
		return nil, err
	}
	return guest.Command(vm, "sh", "-c", script).Output(ctx)
}

// A consumer's test without Firecracker or root: machines are those of package inmemory, and what they execute is executed by an agent here. A test has guesttest.New(t) in place of Start.
func Example() {
	agent, err := guesttest.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer agent.Close()
	rt := inmemory.New(&inmemory.Options{
		Dial: func(ctx context.Context, _ string, port uint32) (net.Conn, error) { return agent.Dial(ctx, port) },
	})
	defer rt.Close()

	out, err := job(context.Background(), rt, "echo hello; exit 3")
	fmt.Printf("%s%v\n", out, err)
	machines, err := rt.List(context.Background(), nil)
	fmt.Println(len(machines), err)
	// Output:
	// hello
	// exit status 3
	// 0 <nil>
}
