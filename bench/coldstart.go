//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	coldStarts = 400
	memoryMiB  = 128
	marker     = "tiny guest runs"
)

var epoch = time.Now() // of the phases of ticks

// settle waits between the end of one VMM and the start of the next, on both sides. The kernel ends a machine after its process has been waited for, and whoever starts a machine
// meanwhile waits for that. Most of a boot is KVM_SET_USER_MEMORY_REGION, which waits for SRCU grace periods: those end at ticks of the clock, so what is measured depends on where
// between two ticks it began. Hence the phases: of n starts each side has one at each nth part of a tick, in random order.
func settle(phase float64) {
	time.Sleep(20 * time.Millisecond)
	at := time.Duration(phase * float64(tick))
	now := time.Since(epoch) % tick
	time.Sleep((at - now + tick) % tick)
}

// tick is the kernel's (CONFIG_HZ=250), or whole ones of a faster clock's.
const tick = 4 * time.Millisecond

// coldStartBare times the call of Start on a created machine, bare, until the guest's text is read from Console, against Firecracker started by this program with a
// configuration file until the same text is read from its standard output: the same machine, with the same devices. Both write a log.
func coldStartBare(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
	r, err := newRig(ctx, parts, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	var creates []time.Duration
	ours, theirs, err := interleave(coldStarts, func(i int, phase float64) (time.Duration, error) {
		create, start, err := oneMachine(ctx, r.Runtime, i, phase)
		if i >= 0 {
			creates = append(creates, create)
		}
		return start, err
	}, func(_ int, phase float64) (time.Duration, error) {
		return onePlain(ctx, parts.Firecracker, r.options.Kernel, r.dir, phase)
	})
	if err != nil {
		return nil, err
	}
	return []figure{
		newFigure("cold_start_bare", ours, "firecracker --no-api --config-file", theirs),
		newFigure("create_bare", creates, "", nil),
	}, nil
}

func oneMachine(ctx context.Context, rt *microvm.Runtime, i int, phase float64) (create, start time.Duration, err error) {
	begin := time.Now()
	vm, err := rt.Create(ctx, fmt.Sprint("bench", i), microvm.Spec{Diskless: true})
	if err != nil {
		return 0, 0, err
	}
	create = time.Since(begin)
	defer func() { err = errors.Join(err, vm.Destroy(ctx)) }()
	settle(phase)
	begin = time.Now()
	if err := vm.Start(ctx, nil); err != nil {
		return 0, 0, err
	}
	console, err := vm.Console(ctx, &microvm.ConsoleOptions{Follow: true})
	if err != nil {
		return 0, 0, err
	}
	defer console.Close()
	if err := await(console); err != nil {
		return 0, 0, err
	}
	return create, time.Since(begin), nil
}

// onePlain is what anybody would do by hand.
func onePlain(ctx context.Context, binary, kernel, dir string, phase float64) (time.Duration, error) {
	config, err := json.Marshal(map[string]any{
		"boot-source": map[string]any{"kernel_image_path": kernel}, "drives": []any{},
		"machine-config": map[string]any{"vcpu_count": 1, "mem_size_mib": memoryMiB},
		"vsock":          map[string]any{"guest_cid": 3, "uds_path": filepath.Join(dir, "vsock.sock")}, "entropy": map[string]any{},
	})
	if err != nil {
		return 0, err
	}
	path, log := filepath.Join(dir, "vm.json"), filepath.Join(dir, "log")
	defer os.Remove(filepath.Join(dir, "vsock.sock"))
	if err := errors.Join(os.WriteFile(path, config, 0o600), os.WriteFile(log, nil, 0o600)); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, binary, "--no-api", "--config-file", path, "--log-path", log)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	settle(phase)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = await(out)
	took := time.Since(begin)
	cmd.Process.Kill()
	cmd.Wait()
	return took, err
}

// await reads until the marker has come.
func await(r io.Reader) error {
	var seen []byte
	part := make([]byte, 256)
	for !bytes.Contains(seen, []byte(marker)) {
		n, err := r.Read(part)
		seen = append(seen, part[:n]...)
		if err != nil && !bytes.Contains(seen, []byte(marker)) {
			return fmt.Errorf("read %q: %w", seen, err)
		}
	}
	return nil
}
