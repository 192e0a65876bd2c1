//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker"
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
	ours, theirs, err := interleave(restores, func(i int, phase float64) (time.Duration, error) {
		return oneRestore(ctx, r.Runtime, snapshot, i, phase)
	}, func(_ int, phase float64) (time.Duration, error) {
		return onePlainLoad(ctx, parts.Firecracker, r.files(snapshot), filepath.Join(r.volatile, "plain"), phase)
	})
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("restore_fresh", ours, "spawn and PUT /snapshot/load", theirs).atMost(1.15)}, nil
}

// restoreWaiting times Restore where a VMM waits for it, against one that this program started before, and tells to load the same files.
func restoreWaiting(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
	r, err := newRig(ctx, parts, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	if err := r.reopen(func(o *firecracker.Options) { o.WaitingVMMs = 1 }); err != nil {
		return nil, err
	}
	snapshot, err := warmSnapshot(ctx, r.Runtime)
	if err != nil {
		return nil, err
	}
	if _, err := oneRestore(ctx, r.Runtime, snapshot, restores, 0); err != nil { // from now on one waits
		return nil, err
	}
	var plain *plainVMM // which waits for as long as ours has, at least: what a process had in the CPU's caches goes with time
	ours, theirs, err := interleave(restores, func(i int, phase float64) (time.Duration, error) {
		err := r.await("api.sock", 1)
		if err == nil {
			plain, err = newPlainVMM(ctx, parts.Firecracker, filepath.Join(r.volatile, "plain"))
		}
		if err != nil {
			return 0, err
		}
		restored, err := oneRestore(ctx, r.Runtime, snapshot, i, phase)
		if err = errors.Join(err, r.await("api.sock", 1)); err != nil { // what is made behind is made beside nobody
			return 0, errors.Join(err, plain.end())
		}
		return restored, nil
	}, func(_ int, phase float64) (time.Duration, error) {
		settle(phase)
		begin := time.Now()
		err := plain.client.LoadSnapshot(ctx, loadOf(r.files(snapshot)))
		took := time.Since(begin)
		return took, errors.Join(err, plain.end())
	})
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("restore_waiting_vmm", ours, "PUT /snapshot/load", theirs).atMost(1.15)}, nil
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
	vm, _, err := rt.Restore(ctx, snapshot, fmt.Sprint("restored", i), nil)
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, vm.Destroy(ctx)
}

// onePlainLoad is what anybody would do by hand.
func onePlainLoad(ctx context.Context, binary, snapshot, dir string, phase float64) (time.Duration, error) {
	plain, err := makePlainVMM(ctx, binary, dir)
	if err != nil {
		return 0, err
	}
	settle(phase)
	begin := time.Now()
	err = plain.start()
	if err == nil {
		err = plain.load(ctx, snapshot)
	}
	took := time.Since(begin)
	return took, errors.Join(err, plain.end())
}

// plainVMM is a Firecracker of this program's own.
type plainVMM struct {
	cmd    *exec.Cmd
	dir    string
	client *api.Client
}

// makePlainVMM makes all that one has before it is started.
func makePlainVMM(ctx context.Context, binary, dir string) (*plainVMM, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "--api-sock", "api.sock", "--log-path", log)
	cmd.Dir = dir
	return &plainVMM{cmd, dir, api.NewUnix(filepath.Join(dir, "api.sock"))}, nil
}

func (p *plainVMM) start() error { return p.cmd.Start() }

// newPlainVMM returns one that listens.
func newPlainVMM(ctx context.Context, binary, dir string) (*plainVMM, error) {
	plain, err := makePlainVMM(ctx, binary, dir)
	if err != nil {
		return nil, err
	}
	if err := plain.start(); err != nil {
		return nil, err
	}
	err = asSoonAsItListens(func() error { _, err := plain.client.GetInstance(ctx); return err })
	if err != nil {
		return nil, errors.Join(err, plain.end())
	}
	return plain, nil
}

func (p *plainVMM) load(ctx context.Context, snapshot string) error {
	return asSoonAsItListens(func() error { return p.client.LoadSnapshot(ctx, loadOf(snapshot)) })
}

func loadOf(snapshot string) api.SnapshotLoad {
	return api.SnapshotLoad{
		SnapshotPath: filepath.Join(snapshot, snapstore.State), ResumeVM: true,
		MemBackend: &api.MemBackend{BackendType: "File", BackendPath: filepath.Join(snapshot, snapstore.Memory)},
	}
}

func asSoonAsItListens(ask func() error) error {
	for begin := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		err := ask()
		if err == nil || !errors.Is(err, api.ErrGone) && !errors.Is(err, os.ErrNotExist) || time.Since(begin) > time.Minute {
			return err
		}
	}
}

// end ends it, and removes what it had.
func (p *plainVMM) end() error {
	p.client.Close()
	if p.cmd.Process != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
	return os.RemoveAll(p.dir)
}
