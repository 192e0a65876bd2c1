//go:build linux

package firecracker

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

func TestRealTry(t *testing.T) {
	dir := t.TempDir()
	k := filepath.Join(dir, "k")
	tinyguest.Write(k, tinyguest.Program{Text: "hello\n"})
	for _, bare := range []bool{true, false} {
		rt, err := New(Options{Firecracker: os.Getenv("HOME") + "/.cache/microvm-runtime/firecracker/1.12.1/firecracker", StateDir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "run"), Kernel: k, Bare: bare})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		vm, err := rt.Create(ctx, "one", microvm.Spec{Diskless: true, MemoryMiB: 128})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			s := time.Now()
			if err := vm.Start(ctx, nil); err != nil {
				t.Fatal(err)
			}
			d := time.Since(s)
			r, err := vm.Console(ctx, &microvm.ConsoleOptions{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 6)
			io.ReadFull(r, b)
			t.Log(d, time.Since(s), string(b))
			r.Close()
			info, err := vm.Info(ctx)
			t.Logf("%+v %v", info, err)
			if err := vm.Pause(ctx); err != nil {
				t.Fatal(err)
			}
			if err := vm.Resume(ctx); err != nil {
				t.Fatal(err)
			}
			exit, err := vm.Stop(ctx, &microvm.StopOptions{Force: true})
			t.Log(exit, err)
		}
		if err := vm.Destroy(ctx); err != nil {
			t.Fatal(err)
		}
		rt.Close()
	}
}
