//go:build linux

package firecracker_test

import (
	"context"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
)

// job runs a script in a machine of its own, and returns what it wrote.
func job(ctx context.Context, image, script string) (out []byte, err error) {
	rt, err := firecracker.FromEnv()
	if err != nil {
		return nil, err
	}
	defer rt.Close()
	vm, err := rt.Create(ctx, "job-7", microvm.Spec{Image: image})
	if err != nil {
		return nil, err
	}
	defer vm.Destroy(context.WithoutCancel(ctx))
	if err := vm.Start(ctx, nil); err != nil {
		return nil, err
	}
	return guest.Command(vm, "sh", "-c", script).Output(ctx)
}

// Run a program in a machine of its own.
func Example() {
	out, err := job(context.Background(), "/srv/images/debian-12.ext4", "echo $((6 * 7))")
	fmt.Printf("%s%v\n", out, err)
}
