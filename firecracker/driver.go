//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/journal"
	"github.com/tangle-network/microvm-runtime/internal/loan"
	"github.com/tangle-network/microvm-runtime/internal/publish"
	"github.com/tangle-network/microvm-runtime/internal/slot"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/store"
	"github.com/tangle-network/microvm-runtime/internal/unix"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// driver implements microvm.Driver and all of its optional interfaces.
type driver struct {
	options  Options
	state    *state.Dir
	store    *store.Store
	binaries []*binary // the first is what boots
	slots    *slot.Pool
	loans    *loan.Book
	ports    *publish.Book
	snaps    *snapstore.Store
	hostNet  hostNetwork
	slice    *cgroup.Slice // nil where the host has no cgroup v2
	log      *slog.Logger
	self     *vmm.Identity // this process

	lines lines // connections with guests
	stock stock // VMMs that wait for restores

	life context.Context // ends with Close
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	calls   sync.WaitGroup    // calls and watchers under way
	watched map[string]*watch // the runs that this process watches, by uid
}

var (
	_ microvm.Driver      = (*driver)(nil)
	_ microvm.Pauser      = (*driver)(nil)
	_ microvm.Renamer     = (*driver)(nil)
	_ microvm.Updater     = (*driver)(nil)
	_ microvm.Recoverer   = (*driver)(nil)
	_ microvm.Trimmer     = (*driver)(nil)
	_ microvm.Snapshotter = (*driver)(nil)
	_ microvm.Claimer     = (*driver)(nil)
	_ microvm.Exporter    = (*driver)(nil)
	_ microvm.Pruner      = (*driver)(nil)
	_ microvm.Dialer      = (*driver)(nil)
	_ microvm.Consoler    = (*driver)(nil)
	_ microvm.Watcher     = (*driver)(nil)
)

// New returns a Runtime on real Firecracker. It makes the directories of the options where they are missing and starts nothing. What does not make sense
// is microvm.ErrInvalid and names the field.
func New(options Options) (*microvm.Runtime, error) {
	d, err := open(options)
	if err != nil {
		return nil, fmt.Errorf("open runtime: %w", err)
	}
	return microvm.New(d), nil
}

func open(options Options) (*driver, error) {
	o, err := options.resolve()
	if err != nil {
		return nil, err
	}
	dir, err := state.Open(o.StateDir, state.Layout{SocketDir: o.SocketDir, JailDir: o.JailDir, Slice: o.Slice, FirstUID: o.FirstUID})
	if err != nil {
		return nil, err
	}
	files, err := store.Open(filepath.Join(o.StateDir, "store"))
	if err != nil {
		return nil, err
	}
	slots, err := slot.Open(filepath.Join(o.StateDir, "slots"), slot.Range{FirstUID: o.FirstUID, Count: o.UIDCount})
	if err != nil {
		return nil, err
	}
	loans, err := loan.OpenBook(filepath.Join(o.StateDir, "loans"), dir.Exists)
	if err != nil {
		return nil, err
	}
	ports, err := publish.Open(filepath.Join(o.StateDir, "ports"), dir.Exists, o.hostNet)
	if err != nil {
		return nil, err
	}
	snaps, err := snapstore.Open(filepath.Join(o.StateDir, snapshotsDir))
	if err != nil {
		return nil, err
	}
	snaps.Hook = o.hook
	if !o.Bare {
		if err := checkJails(o, dir); err != nil {
			return nil, err
		}
	}
	slice, err := cgroup.Open(o.Slice)
	if err != nil && !errors.Is(err, cgroup.ErrUnsupported) {
		if !o.Bare {
			return nil, err
		}
		o.Logger.Warn("no cgroup for bare machines", "error", err)
		slice = nil
	}
	self, err := vmm.Self()
	if err != nil {
		return nil, err
	}
	if err := dir.FixLayout(); err != nil {
		return nil, err
	}
	d := &driver{self: &self, options: o, binaries: binariesOf(o), state: dir, store: files, slots: slots, loans: loans, ports: ports, snaps: snaps, slice: slice, log: o.Logger, watched: map[string]*watch{}, stock: stock{waiting: map[stockKey][]*restoration{}}}
	d.life, d.end = context.WithCancel(context.Background())
	return d, nil
}

// checkJails refuses what would fail at every start: no root, or a directory that no jail can be in. Where there are machines already the directory was good, and what keeps it from
// being so now, such as a full disk, must keep nobody from ending them.
func checkJails(o Options, dir *state.Dir) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: the jailer needs root (run as root, or set Options.Bare for development)", microvm.ErrInvalid)
	}
	if uids, err := dir.UIDs(); err != nil || len(uids) > 0 {
		return err
	}
	if err := os.MkdirAll(o.JailDir, 0o700); err != nil {
		return err
	}
	noDevices, noPrograms, err := unix.MountLacks(o.JailDir)
	if err != nil {
		return err
	}
	if noDevices || noPrograms {
		return badOption("JailDir", o.JailDir, "must not be on a file system that is mounted nodev or noexec: jails have device nodes and a program (remount it, or put it elsewhere)")
	}
	return checkLinks(o)
}

// checkLinks tries to link a file of StateDir into JailDir.
func checkLinks(o Options) (err error) {
	name := state.ProbePrefix + state.NewUID()
	source, link := filepath.Join(o.StateDir, name), filepath.Join(o.JailDir, name)
	if err := os.WriteFile(source, nil, 0o600); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(source)) }()
	if err := os.Link(source, link); err != nil {
		return badOption("JailDir", o.JailDir, fmt.Sprintf("must be on the file system of StateDir %s, so that files can be linked: %v", o.StateDir, err))
	}
	return os.Remove(link)
}

// enter begins a call, which Close interrupts and waits for. The context that it returns ends with the caller's and with the runtime.
func (d *driver) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, microvm.ErrClosed
	}
	d.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.life, func() { cancel(microvm.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		d.calls.Done()
	}, nil
}

// locked calls a verb's sequence with the machine's lock held and what load returned of it. It is a call: see enter.
func (d *driver) locked(ctx context.Context, uid string, verb func(context.Context, *state.Lock, *machine) error) error {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return d.withMachine(ctx, uid, verb)
}

// withMachine is locked within a call.
func (d *driver) withMachine(ctx context.Context, uid string, verb func(context.Context, *state.Lock, *machine) error) error {
	lock, m, err := d.take(ctx, uid, true)
	if errors.Is(err, errStarterFirst) {
		d.yieldToStarter(ctx, uid)
		lock, m, err = d.take(ctx, uid, false)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return d.unlessEnded(lock, m, verb(ctx, lock, m))
}

// take locks a machine and loads it.
func (d *driver) take(ctx context.Context, uid string, yield bool) (*state.Lock, *machine, error) {
	lock, err := d.state.Lock(ctx, uid)
	if err != nil {
		return nil, nil, err
	}
	m, err := d.load(lock, yield)
	if err != nil {
		lock.Unlock()
		return nil, nil, err
	}
	return lock, m, nil
}

// reading calls a function that takes no lock. It is a call: see enter.
func (d *driver) reading(ctx context.Context, read func(context.Context) error) error {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return read(ctx)
}

// Close ends this process's goroutines and descriptors, once the calls under way have returned. Machines run on.
func (d *driver) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.end()
	d.calls.Wait()
	d.stock.close(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	for uid, w := range d.watched {
		w.process.Close()
		delete(d.watched, uid)
	}
	return nil
}

// warn logs an error of what nobody waits for, with what it is about, unless it is of the driver's end.
func (d *driver) warn(what string, err error, about ...any) {
	if err != nil && d.life.Err() == nil {
		d.log.Warn(what, append(about, "error", err)...)
	}
}

// tellPatience is how long another process may hold the journal.
const tellPatience = time.Second

// tell writes an event to the journal. That it can't is logged and harms nothing: the records are the truth.
func (d *driver) tell(record *state.Record, name string, what microvm.EventType, exit *microvm.Exit) {
	d.note(microvm.Event{Time: time.Now(), Type: what, UID: record.UID, Name: name, Exit: exit, Labels: record.Spec.Labels})
}

func (d *driver) note(event microvm.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), tellPatience) // what is told has happened, whatever the call's context says
	defer cancel()
	if err := journal.Append(ctx, d.state.Journal(), event); err != nil {
		d.log.Warn("event is lost", "event", event.Type, "uid", event.UID, "error", err)
	}
}
