//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/guard"
	"github.com/tangle-network/microvm-runtime/internal/imagestore"
	"github.com/tangle-network/microvm-runtime/internal/kernels"
	"github.com/tangle-network/microvm-runtime/internal/loan"
	"github.com/tangle-network/microvm-runtime/internal/publish"
	"github.com/tangle-network/microvm-runtime/internal/slot"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/store"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

// Purged is what Purge did.
type Purged struct {
	Removed []string // What is gone: machines, the cgroup slice, directories.
	Stays   []string // Paths of what is not ours, and of directories that are mount points.
}

// Purge uninstalls: it destroys all machines of the options' state directory, then removes the slots, jails, cgroup slice, store and records. It removes nothing else: what somebody
// else put into one of the directories stays, and so does the directory. It stops where a machine can't be destroyed, and can be repeated. A VMM that waits for
// a restore in a process that lives is microvm.ErrBusy: that process has to end it.
func Purge(ctx context.Context, options Options) (p Purged, err error) {
	d, err := open(options)
	if err != nil {
		return p, fmt.Errorf("purge: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := p.machines(ctx, d); err != nil {
		return p, fmt.Errorf("purge: %w", err)
	}
	if _, err := d.loans.Sweep(); err != nil { // of machines whose records were lost
		return p, fmt.Errorf("purge: %w", err)
	}
	if _, err := d.store.Collect(ctx, needsNothing); err != nil { // whatever snapshots, and damaged ones, have of it goes with them
		return p, fmt.Errorf("purge: %w", err)
	}
	if err := d.removeNetwork(ctx); err != nil {
		return p, fmt.Errorf("purge: %w", err)
	}
	if d.slice != nil {
		if err := d.slice.Remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return p, fmt.Errorf("purge: cgroup slice %s: %w", d.options.Slice, err)
		}
		p.Removed = append(p.Removed, "cgroup slice "+d.options.Slice)
	}
	for _, tree := range d.trees() {
		stays, err := tree.Remove()
		p.Stays = append(p.Stays, stays...)
		if err != nil {
			return p, fmt.Errorf("purge: %w", err)
		}
		if len(stays) == 0 {
			p.Removed = append(p.Removed, tree.Dir)
		}
	}
	return p, nil
}

func needsNothing() (map[string]bool, error) { return nil, nil }

// machines destroys all, also those that are made meanwhile.
func (p *Purged) machines(ctx context.Context, d *driver) error {
	for {
		uids, err := d.state.UIDs()
		if err != nil || len(uids) == 0 {
			return err
		}
		for _, uid := range uids {
			name, _ := d.state.NameOf(uid)
			if err := d.purge(ctx, uid); err != nil {
				return fmt.Errorf("machine %s %s: %w", uid, name, err)
			}
			p.Removed = append(p.Removed, "machine "+uid+" "+name)
		}
	}
}

// waitingPatience is how long the process in which a VMM waits may take to end it.
const waitingPatience = 5 * time.Second

// purge destroys a machine. One that waits for a restore is another process's, which has its lock for as long as it lives.
func (d *driver) purge(ctx context.Context, uid string) error {
	if d.waits(uid) {
		run, _ := d.state.ReadRun(uid)
		waiting, cancel := context.WithTimeout(ctx, waitingPatience)
		lock, err := d.state.Lock(waiting, uid)
		cancel()
		switch {
		case err == nil:
			lock.Unlock()
		case errors.Is(err, microvm.ErrBusy) && ctx.Err() == nil && d.waits(uid) && run != nil && run.Starter != nil:
			return fmt.Errorf("%w: it waits in process %d for the next restore of a snapshot (end that process, or close its Runtime, first)", microvm.ErrBusy, run.Starter.PID)
		}
	}
	err := d.Destroy(ctx, uid)
	if errors.Is(err, microvm.ErrNotFound) { // it has gone meanwhile
		return nil
	}
	return err
}

// trees say what the options' directories hold of ours.
func (d *driver) trees() []tidy.Tree {
	sockets, root := d.state.Trees()
	sockets.Below = append(sockets.Below, guard.Tree(guardDir))
	root.Below = append(root.Below, store.Tree("store"), snapstore.Tree(snapshotsDir), slot.Tree("slots"), loan.Tree("loans"), publish.Tree("ports"), kernels.Tree("kernels"), imagestore.Tree("images"))
	jails := tidy.Tree{Dir: d.options.JailDir, Ours: isProbe}
	own := filepath.Dir(jails.Dir) == d.options.StateDir // else it is the administrator's, and may hold others' jails: those of our machines are gone already
	entries, _ := os.ReadDir(jails.Dir)
	for _, entry := range entries {
		if !entry.IsDir() || !strings.Contains(entry.Name(), "firecracker") { // as the jailer wants its binary to be called
			continue
		}
		of := tidy.Tree{Dir: entry.Name()}
		if own {
			of.Ours = isJail
		}
		jails.Below = append(jails.Below, of)
	}
	if !own {
		return []tidy.Tree{sockets, jails, root}
	}
	jails.Dir = filepath.Base(jails.Dir)
	root.Below = append(root.Below, jails)
	return []tidy.Tree{sockets, root}
}

func isProbe(_ string, entry fs.DirEntry) bool {
	return strings.HasPrefix(entry.Name(), state.ProbePrefix)
}

// isJail says whether a directory is one of the jailer's.
func isJail(dir string, entry fs.DirEntry) bool {
	_, err := os.Lstat(filepath.Join(dir, entry.Name(), "root"))
	return err == nil && state.ValidUID(entry.Name())
}
