// Package inmemory is a driver of package microvm without machines: a double for consumers' tests, which behaves as the real one does, within this process.
//
// There are only three types: [Options], with faults to inject, [Control], which makes machines end by themselves, and [Store], which several runtimes can share.
//
// # Caveats
//
// No guest executes anything, unless Options.Dial leads to an agent: see the example of package guest/guesttest. A console holds one line for each start, and Dial reaches what Options.Dial provides: nobody listens otherwise.
package inmemory

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Marker is what each start writes to the console.
const Marker = "inmemory machine runs\n"

// Options are the options of New. Nil, or the zero value, is the default.
type Options struct {
	// Fault is called at the beginning of every verb of the driver, with the verb's name, such as "start", and the machine's uid, or its name for "create". An error that it returns
	// is the verb's, and nothing has changed. Optional.
	Fault func(verb, ref string) error
	// Dial connects to a port of a machine that runs. Optional: nobody listens, which is syscall.ECONNREFUSED. With that of package guest/guesttest machines execute commands, on this host.
	Dial func(ctx context.Context, uid string, port uint32) (net.Conn, error)
	// MaxVMs bounds the number of machines: microvm.ErrExhausted. Optional: no bound.
	MaxVMs int
	// Store holds the machines. Runtimes on one store are to each other what processes on one host are: machines outlive each of them. Optional: one of the runtime's own.
	Store *Store
}

// Store is the host of inmemory machines. The zero value has none.
type Store struct {
	mu        sync.Mutex
	machines  map[string]*machine
	names     map[string]string // name to uid
	snapshots map[string]*snapshot
	watchers  map[*watcher]bool
}

// Control does to machines what no caller of a Runtime can.
type Control struct{ d *driver }

// New returns a Runtime on nothing but memory.
func New(o *Options) *microvm.Runtime {
	rt, _ := NewControlled(o)
	return rt
}

// NewControlled returns a Runtime, and the control of its machines.
func NewControlled(o *Options) (*microvm.Runtime, Control) {
	d := &driver{closed: make(chan struct{})}
	if o != nil {
		d.options = *o
	}
	if d.Store = d.options.Store; d.Store == nil {
		d.Store = &Store{}
	}
	return microvm.New(d), Control{d}
}

// End ends the run of a machine as if it had ended by itself. Nothing happens when it does not run.
func (c Control) End(uid string, exit microvm.Exit) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	if m := c.d.machines[uid]; m != nil && m.runs() {
		c.d.end(m, exit)
	}
}

// driver is one runtime's view of a store.
type driver struct {
	*Store
	options Options
	shut    bool // Under the store's lock.
	closed  chan struct{}
}

type machine struct {
	info    microvm.Info
	console []byte
	ended   chan struct{} // of the present run; closed when it ends
	ports   map[uint32]*listener
	from    string // uid of the snapshot that the present run began with
	since   string // uid of the snapshot that a diff would be over
}

func (m *machine) runs() bool {
	return m.info.State == microvm.StateRunning || m.info.State == microvm.StatePaused
}

var (
	_ microvm.Driver      = (*driver)(nil)
	_ microvm.Pauser      = (*driver)(nil)
	_ microvm.Renamer     = (*driver)(nil)
	_ microvm.Updater     = (*driver)(nil)
	_ microvm.Meter       = (*driver)(nil)
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

// enter begins a verb: the lock is held when it returns nil.
func (d *driver) enter(ctx context.Context, verb, ref string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if d.options.Fault != nil {
		if err := d.options.Fault(verb, ref); err != nil {
			return err
		}
	}
	d.mu.Lock()
	if d.shut {
		d.mu.Unlock()
		return microvm.ErrClosed
	}
	return nil
}

// find is enter for one machine.
func (d *driver) find(ctx context.Context, verb, uid string) (*machine, error) {
	if err := d.enter(ctx, verb, uid); err != nil {
		return nil, err
	}
	m := d.machines[uid]
	if m == nil {
		d.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", uid, microvm.ErrNotFound)
	}
	return m, nil
}

func stateError(verb string, state microvm.State) error {
	return fmt.Errorf("%w: can't %s a machine that is %s", microvm.ErrState, verb, state)
}

// end ends a run, under the lock.
func (s *Store) end(m *machine, exit microvm.Exit) {
	if exit.Time.IsZero() {
		exit.Time = time.Now()
	}
	m.info.State, m.info.Exit, m.info.PID = microvm.StateStopped, &exit, 0
	close(m.ended)
	for _, l := range m.ports {
		l.Close()
	}
	from := s.snapshots[m.from]
	m.ports, m.from, m.since = nil, "", ""
	if from != nil && from.info.Ephemeral {
		s.deleteSnapshot(from.info.UID) // else another machine needs it
	}
	s.tell(m, microvm.EventStopped, &exit)
}

// Close ends watchers and waiters. The machines are the store's.
func (d *driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.shut {
		d.shut = true
		close(d.closed)
	}
	return nil
}

// Dial calls Options.Dial.
func (d *driver) Dial(ctx context.Context, uid string, port uint32) (net.Conn, error) {
	m, err := d.find(ctx, "dial", uid)
	if err != nil {
		return nil, err
	}
	state, runs := m.info.State, m.runs()
	d.mu.Unlock()
	if !runs {
		return nil, stateError("dial", state)
	}
	if d.options.Dial == nil {
		return nil, fmt.Errorf("port %d: nobody listens in the guest: %w", port, syscall.ECONNREFUSED)
	}
	return d.options.Dial(ctx, uid, port)
}
