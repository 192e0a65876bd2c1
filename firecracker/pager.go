//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// pagerSocket is where a VMM finds who serves its memory.
const pagerSocket = "uffd.sock"

func (d *driver) pagerDir(uid string) string { return filepath.Join(d.state.Volatile(uid), "pager") }

func pagerLeaf(uid string) string { return "pager-" + uid }

// startPager sees to it that a helper serves the memory of a run: the one that does, or one that takes over from it. When the helper ends, while this driver and the VMM live, another takes
// over.
func (d *driver) startPager(ctx context.Context, record *state.Record, run *state.Run) error {
	config, err := d.pagerConfig(ctx, record, run)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	if err := os.Mkdir(config.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	handle, err := d.servePages(ctx, record.UID, config)
	if err != nil {
		return err
	}
	w := d.watchOf(record.UID, run)
	if w == nil {
		return handle.Close()
	}
	d.calls.Go(func() { d.keepPager(record.UID, w, config, handle) })
	return nil
}

func (d *driver) servePages(ctx context.Context, uid string, config pager.Config) (*helper.Handle, error) {
	handle, err := pager.Start(ctx, d.options.HelperPath, d.helperLeaf(pagerLeaf(uid)), config)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	return handle, nil
}

func (d *driver) pagerConfig(ctx context.Context, record *state.Record, run *state.Run) (config pager.Config, err error) {
	manifest, err := d.snaps.Read(run.Snapshot)
	if err != nil {
		return config, err
	}
	memory, err := d.snaps.Memory(ctx, &manifest)
	if err != nil {
		return config, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if record.Jailed {
		uid, gid = d.jailUser(record)
	}
	return pager.Config{
		Dir: d.pagerDir(record.UID), VMM: *run.Process, UID: uid, GID: gid, Root: d.place(record).dir(), Socket: pagerSocket,
		Source: pager.Location{Kind: pager.SourceFile, Path: memory}, Log: d.log,
	}, nil
}

// keepPager has another helper take over from one that has ended, until the VMM ends, or this driver.
func (d *driver) keepPager(uid string, w *watch, config pager.Config, handle *helper.Handle) {
	for {
		select {
		case <-w.process.Done():
		case <-w.left:
		case <-d.life.Done():
		case <-handle.Done():
			handle.Close()
			select {
			case <-w.process.Done(): // it is no more needed
				return
			case <-w.left:
				return
			default:
			}
			next, err := d.servePages(d.life, uid, config)
			if err != nil {
				d.log.Warn("a machine stands still: nobody serves its memory", "uid", uid, "error", err)
				return
			}
			handle = next
			continue
		}
		handle.Close()
		return
	}
}

// pagerReason says why a helper ended the VMM of a run; empty where none did.
func (d *driver) pagerReason(uid string, run *state.Run) string {
	if !run.Pager || run.Process == nil {
		return ""
	}
	reason, err := pager.Reason(d.pagerDir(uid), *run.Process)
	if err != nil {
		return ""
	}
	return reason
}

// endPager ends the helper that serves a machine's memory, if there is one. Its VMM has ended.
func (d *driver) endPager(uid string) error {
	if _, err := os.Lstat(d.pagerDir(uid)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoPatience)
	defer cancel()
	if err := pager.Stop(ctx, d.pagerDir(uid)); err != nil {
		return fmt.Errorf("end the helper of its memory: %w", err)
	}
	return errors.Join(os.RemoveAll(d.pagerDir(uid)), d.endLeaf(pagerLeaf(uid)))
}
