package microvm_test

import (
	"context"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/inmemory"
)

// A machine's whole life. With firecracker.FromEnv instead of inmemory.New it is a real one.
func Example() {
	ctx := context.Background()
	rt := inmemory.New(nil)
	defer rt.Close()

	vm, err := rt.Create(ctx, "job-7", microvm.Spec{Image: "/srv/images/debian-12.ext4", MemoryMiB: 512})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := vm.Start(ctx, nil); err != nil {
		fmt.Println(err)
		return
	}
	info, err := vm.Info(ctx)
	fmt.Println(info.Name, info.State, info.Spec.MemoryMiB, err)
	exit, err := vm.Stop(ctx, nil)
	fmt.Println(exit.Reason, err)
	fmt.Println(vm.Destroy(ctx))
	// Output:
	// job-7 running 512 <nil>
	// stopped <nil>
	// <nil>
}

// A caller branches on sentinels.
func ExampleRuntime_VM() {
	rt := inmemory.New(nil)
	defer rt.Close()
	_, err := rt.VM(context.Background(), "nobody")
	fmt.Println(err)
	// Output: find nobody: "nobody": not found
}
