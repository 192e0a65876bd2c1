//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/pager"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// pagerSocket is where a VMM finds who serves its memory.
const pagerSocket = "uffd.sock"

func (d *driver) pagerDir(uid string) string { return filepath.Join(d.state.Volatile(uid), "pager") }

func pagerLeaf(uid string) string      { return "pager-" + uid }
func pagerWatchLeaf(uid string) string { return "pagerwatch-" + uid }

// startPager sees to it that a helper serves the memory of a run: the one that does, or one that takes over from it. When the helper ends, while this driver and the VMM live, another takes
// over; or the machine ends, where the run is one that ends with it.
func (d *driver) startPager(ctx context.Context, record *state.Record, run *state.Run) error {
	config, err := d.pagerConfig(ctx, record, run)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	if err := os.Mkdir(config.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	serve := func(ctx context.Context) (*helper.Handle, error) { return d.servePages(ctx, record.UID, config) }
	if !run.PagerEnds {
		return d.keepHelper(ctx, record.UID, run, serve)
	}
	handle, err := serve(ctx)
	if err != nil {
		return err
	}
	return errors.Join(handle.Close(), d.watchPager(ctx, record.UID, run))
}

// adoptPager is startPager for a machine that another process has restored.
func (d *driver) adoptPager(ctx context.Context, record *state.Record, run *state.Run) error {
	if run.PagerEnds {
		return d.watchPager(ctx, record.UID, run)
	}
	return d.startPager(ctx, record, run)
}

// watchPager sees to it that a helper ends the VMM of a run when the one that serves its memory ends: at once where that has ended already.
func (d *driver) watchPager(ctx context.Context, uid string, run *state.Run) error {
	leaf, dir, identity := d.helperLeaf(pagerWatchLeaf(uid)), d.pagerDir(uid), *run.Process
	return d.keepHelper(ctx, uid, run, func(ctx context.Context) (*helper.Handle, error) {
		handle, err := pager.StartWatch(ctx, d.options.HelperPath, leaf, dir, identity)
		if err != nil {
			return nil, fmt.Errorf("memory: %w", err)
		}
		return handle, nil
	})
}

// keepHelper starts a helper of a run's, and another when it ends, while this driver and the VMM live.
func (d *driver) keepHelper(ctx context.Context, uid string, run *state.Run, start func(context.Context) (*helper.Handle, error)) error {
	handle, err := start(ctx)
	if err != nil {
		return err
	}
	w := d.watchOf(uid, run)
	if w == nil {
		return handle.Close()
	}
	d.calls.Go(func() { d.startAgain(uid, w, handle, start) })
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
	set := d.snaps.WorkingSet(run.Snapshot)
	uid, gid := os.Geteuid(), os.Getegid()
	if record.Jailed {
		uid, gid = d.jailUser(record)
	}
	return pager.Config{
		Dir: d.pagerDir(record.UID), VMM: *run.Process, UID: uid, GID: gid, Root: d.place(record).dir(), Socket: pagerSocket,
		Source: pager.Location{Kind: pager.SourceFile, Path: memory}, WorkingSet: set, Record: set, RecordFor: recordedFor, Log: d.log,
	}, nil
}

// startAgain has another helper follow one that has ended, until the VMM ends, or this driver.
func (d *driver) startAgain(uid string, w *watch, handle *helper.Handle, start func(context.Context) (*helper.Handle, error)) {
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
			next, err := start(d.life)
			if err != nil {
				d.log.Warn("nobody serves a machine's memory any more, or sees to its end then", "uid", uid, "error", err)
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

// endPager ends the helpers of a run that was begun. They are not watched any more: another would follow each.
func (b *boot) endPager() error { return errors.Join(b.unwatch(), b.driver.endPager(b.record.UID)) }

// lastWord is how long a helper may take to write the working set down, once its machine has ended.
const lastWord = time.Second

// endPager ends the helpers of a machine's memory, if there are some. Its VMM has ended.
func (d *driver) endPager(uid string) error {
	if _, err := os.Lstat(d.pagerDir(uid)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoPatience)
	defer cancel()
	word, done := context.WithTimeout(ctx, lastWord)
	_ = pager.FinishRecording(word, d.pagerDir(uid)) // where it can't any more, the next machine's records
	done()
	if err := pager.Stop(ctx, d.pagerDir(uid)); err != nil {
		return fmt.Errorf("end the helper of its memory: %w", err)
	}
	return errors.Join(os.RemoveAll(d.pagerDir(uid)), d.endLeaf(pagerLeaf(uid)), d.endLeaf(pagerWatchLeaf(uid)))
}
