//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/warmpool"
)

const handouts = 200

// warmHandout times Pool.Take of a machine that waits, without an agent, against PATCH /vm Resumed of a machine that this program has restored and paused.
func warmHandout(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
	r, err := newRig(ctx, parts, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	snapshot, err := warmSnapshot(ctx, r.Runtime)
	if err != nil {
		return nil, err
	}
	pool, err := warmpool.Open(ctx, r.Runtime, "bench", snapshot, &warmpool.Options{Size: 2})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	ours, theirs, err := interleave(handouts, func(i int, phase float64) (time.Duration, error) {
		return oneHandout(ctx, pool, i, phase)
	}, func(_ int, phase float64) (time.Duration, error) {
		return onePlainResume(ctx, parts.Firecracker, r.files(snapshot), filepath.Join(r.volatile, "plain"), phase)
	})
	if err != nil {
		return nil, err
	}
	f := newFigure("warm_handout", ours, "PATCH /vm Resumed", theirs)
	f.Beyond, f.Tail = 1, 2
	return []figure{f}, nil
}

// oneHandout takes a machine from a full pool, which fills itself again behind.
func oneHandout(ctx context.Context, pool *warmpool.Pool, i int, phase float64) (time.Duration, error) {
	if err := pool.Fill(ctx); err != nil {
		return 0, err
	}
	settle(phase)
	begin := time.Now()
	vm, _, err := pool.Take(ctx, fmt.Sprint("job", i), nil)
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	return took, errors.Join(vm.Destroy(ctx), pool.Fill(ctx))
}

func onePlainResume(ctx context.Context, binary, snapshot, dir string, phase float64) (time.Duration, error) {
	plain, err := newPlainVMM(ctx, binary, dir)
	if err != nil {
		return 0, err
	}
	load := loadOf(snapshot)
	load.ResumeVM = false
	err = plain.client.LoadSnapshot(ctx, load)
	settle(phase)
	begin := time.Now()
	if err == nil {
		err = plain.client.PatchVM(ctx, api.VMResumed)
	}
	took := time.Since(begin)
	return took, errors.Join(err, plain.end())
}

const (
	forks    = 50
	forked   = 100
	together = 8
)

// forkHundred times a fork of a hundred machines, bare, against as many Firecrackers that this program starts and tells to load the same files, as many at a time. Then it reads what one that does
// nothing has of the host's memory.
func forkHundred(ctx context.Context, parts setup.Parts) (_ []figure, err error) {
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
	var pss []float64
	for i := range forks + 1 {
		took, shares, err := oneFork(ctx, r.Runtime, snapshot)
		if err != nil {
			return nil, err
		}
		plain, err := onePlainFork(ctx, parts.Firecracker, r.files(snapshot), r.volatile)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			ours, theirs, pss = append(ours, took), append(theirs, plain), append(pss, shares...)
		}
	}
	return []figure{newFigure("fork_100", ours, "spawn and PUT /snapshot/load", theirs).atMost(1.2), figureOf(figure{Name: "fork_100_pss", Unit: "MiB", ours: pss})}, nil
}

// oneFork returns what each of the machines has of the host's memory, in MiB, what they share divided among them (proc(5), smaps_rollup).
func oneFork(ctx context.Context, rt *microvm.Runtime, snapshot string) (took time.Duration, pss []float64, err error) {
	names := make([]string, forked)
	for i := range names {
		names[i] = fmt.Sprint("forked-", i)
	}
	settle(0)
	begin := time.Now()
	all, err := rt.Fork(ctx, snapshot, names, &microvm.RestoreOptions{Parallel: together})
	took = time.Since(begin)
	if err != nil {
		return 0, nil, err
	}
	for _, one := range all {
		if one.Err != nil {
			return 0, nil, one.Err
		}
		info, err := one.VM.Info(ctx)
		if err != nil {
			return 0, nil, err
		}
		share, err := shareOf(info.PID)
		if err != nil {
			return 0, nil, err
		}
		pss = append(pss, share)
	}
	return took, pss, atOnce(forked, func(i int) error { return all[i].VM.Destroy(ctx) })
}

func shareOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	kib, err := strconv.ParseFloat(strings.Fields(rest + " ?")[0], 64)
	return kib / 1024, err
}

func onePlainFork(ctx context.Context, binary, snapshot, dir string) (time.Duration, error) {
	plain := make([]*plainVMM, forked)
	for i := range plain {
		var err error
		if plain[i], err = makePlainVMM(ctx, binary, filepath.Join(dir, fmt.Sprint("plain-", i))); err != nil {
			return 0, err
		}
	}
	settle(0)
	begin := time.Now()
	err := atOnce(forked, func(i int) error {
		if err := plain[i].start(); err != nil {
			return err
		}
		return plain[i].load(ctx, snapshot)
	})
	took := time.Since(begin)
	return took, errors.Join(err, atOnce(forked, func(i int) error { return plain[i].end() }))
}

// atOnce does something n times, some at a time.
func atOnce(n int, do func(i int) error) error {
	errs := make([]error, n)
	places := make(chan struct{}, together)
	var working sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		working.Go(func() {
			defer func() { <-places }()
			errs[i] = do(i)
		})
	}
	working.Wait()
	return errors.Join(errs...)
}
