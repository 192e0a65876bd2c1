//go:build linux

package firecracker_test

import (
	"context"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
)

// Run a program in a machine of its own.
func Example() {
	run := func(ctx context.Context, program string) (out []byte, err error) {
		rt, err := firecracker.FromEnv()
		if err != nil {
			return nil, err
		}
		defer rt.Close()
		vm, err := rt.Create(ctx, "job-7", microvm.Spec{Image: "/srv/images/debian-12.ext4"})
		if err != nil {
			return nil, err
		}
		defer vm.Destroy(context.WithoutCancel(ctx))
		if err := vm.Start(ctx, nil); err != nil {
			return nil, err
		}
		return guest.Command(vm, "python3", "-c", program).Output(ctx)
	}
	fmt.Printf("%T\n", run)
	// Output: func(context.Context, string) ([]uint8, error)
}
