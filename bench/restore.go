//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
)

const restores = 100

// restoreFresh times Restore of a bare machine, whose name, record and run are there then, and whose guest runs, against Firecracker started by this program and told to load the same files.
func restoreFresh(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
	r, err := newRig(ctx, parts, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	snapshot, err := warmSnapshot(ctx, r.Runtime)
	if err != nil {
		return nil, err
	}
	var ours, theirs []time.Duration
	phases := rand.Perm(restores)
	for i := range restores + 5 {
		phase := float64(phases[i%restores]) / restores
		restored, err := oneRestore(ctx, r.Runtime, snapshot, i, phase)
		if err != nil {
			return nil, err
		}
		plain, err := onePlainLoad(ctx, parts.Firecracker, filepath.Join(r.options.StateDir, "snapshots", "all", snapshot), filepath.Join(r.volatile, "plain"), phase)
		if err != nil {
			return nil, err
		}
		if i >= 5 { // caches fill
			ours, theirs = append(ours, restored), append(theirs, plain)
		}
	}
	return []figure{newFigure("restore_fresh", ours, "spawn and PUT /snapshot/load", theirs)}, nil
}

func warmSnapshot(ctx context.Context, rt *microvm.Runtime) (uid string, err error) {
	vm, err := rt.Create(ctx, "warm", microvm.Spec{Diskless: true})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, vm.Destroy(ctx)) }()
	if err := vm.Start(ctx, nil); err != nil {
		return "", err
	}
	info, err := vm.Snapshot(ctx, "warm", nil)
	return info.UID, err
}

func oneRestore(ctx context.Context, rt *microvm.Runtime, snapshot string, i int, phase float64) (time.Duration, error) {
	settle(phase)
	begin := time.Now()
	vm, _, err := rt.Restore(ctx, snapshot, fmt.Sprint("restored-", i), nil)
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, vm.Destroy(ctx)
}

// onePlainLoad is what anybody would do by hand.
func onePlainLoad(ctx context.Context, binary, snapshot, dir string, phase float64) (_ time.Duration, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, binary, "--api-sock", "api.sock", "--log-path", log)
	cmd.Dir = dir
	settle(phase)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	client := api.NewUnix(filepath.Join(dir, "api.sock"))
	defer client.Close()
	load := api.SnapshotLoad{
		SnapshotPath: filepath.Join(snapshot, snapstore.State), ResumeVM: true,
		MemBackend: &api.MemBackend{BackendType: "File", BackendPath: filepath.Join(snapshot, snapstore.Memory)},
	}
	for {
		err := client.LoadSnapshot(ctx, load)
		if err == nil {
			return time.Since(begin), nil
		}
		if !errors.Is(err, api.ErrGone) && !errors.Is(err, os.ErrNotExist) || time.Since(begin) > time.Minute {
			return 0, err
		}
		time.Sleep(100 * time.Microsecond)
	}
}
