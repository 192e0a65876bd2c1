//go:build linux

package firecracker_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/guest"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func TestLabTry(t *testing.T) {
	p := ring.Lab(t)
	dir := t.TempDir()
	rt, err := firecracker.New(firecracker.Options{Firecracker: p.Firecracker, Jailer: p.Jailer, Kernel: p.Vmlinux, Image: p.Base, Agent: p.Agent,
		StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	ctx := t.Context()
	s := time.Now()
	vm, err := rt.Create(ctx, "one", microvm.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log("create", time.Since(s))
	s = time.Now()
	if err := vm.Start(ctx, nil); err != nil {
		r, cerr := vm.Console(ctx, nil)
		if cerr == nil {
			b, _ := io.ReadAll(r)
			t.Logf("console: %s", b)
		}
		t.Fatal(err)
	}
	t.Log("start", time.Since(s))
	info, _ := vm.Info(ctx)
	t.Log(info.Timeline)
	h, err := guest.GetHealth(ctx, vm)
	t.Log(h, err)
	s = time.Now()
	out, err := guest.Command(vm, "sh", "-c", "uname -a; exit 3").CombinedOutput(ctx)
	t.Logf("%v %s %v", time.Since(s), out, err)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	c := guest.Command(vm, "cat")
	c.Stdin = bytes.NewReader(data)
	s = time.Now()
	out, err = c.Output(ctx)
	t.Log(time.Since(s), len(out), err, sha256.Sum256(out) == sha256.Sum256(data))
	r, err := vm.Console(ctx, nil)
	if err == nil {
		b, _ := io.ReadAll(r)
		fmt.Printf("console: %s\n", b)
	}
	s = time.Now()
	exit, err := vm.Stop(ctx, nil)
	t.Log("stop", time.Since(s), exit, exit.Evidence, err)
	if err := vm.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
}
