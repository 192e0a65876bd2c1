package warmpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// Labels of the machines that a pool has made.
const (
	Label         = "microvm.pool"          // The pool's name.
	SnapshotLabel = "microvm.pool-snapshot" // Uid of the snapshot that it was made of.
)

// Options are the options of Open. Nil, or the zero value, is the default.
type Options struct {
	// Size is how many machines wait. Optional: 4. Resize changes it, also to 0.
	Size int
	// Restore says how machines are restored. Hold and Paused are the pool's, and its labels are added. Ports can't be published: a port is one machine's, so that they belong to
	// ClaimOptions.Change.
	Restore microvm.RestoreOptions
	// MaxAge is how old a machine that waits may get: then another takes its place. Optional: any age.
	MaxAge time.Duration
	// Parallel is how many are made at a time. Optional: 2.
	Parallel int
	// Interval is how often the pool looks whether what waits is still good, beside what the runtime tells of machines that end. Optional: 10 seconds.
	Interval time.Duration
	// Logger is told what the pool can't do. Optional: silent.
	Logger *slog.Logger
}

const (
	defaultSize     = 4
	defaultParallel = 2
	defaultInterval = 10 * time.Second
	maxSize         = 100_000
)

// Pool hands out machines of one snapshot. It may be used by many goroutines at once. See [Open].
type Pool struct {
	rt       *microvm.Runtime
	name     string
	snapshot microvm.SnapshotInfo
	options  Options

	wake    chan struct{} // something is to be done
	end     context.CancelFunc
	working sync.WaitGroup

	looking sync.Mutex // held while somebody looks

	mu      sync.Mutex
	size    int
	ready   []string        // names of what waits, the oldest first
	taking  map[string]bool // names that somebody in this process claims
	made    []string        // names of what was made since somebody began to look,
	taken   map[string]bool // and of what somebody in this process took
	making  int
	unmade  uint64 // how many could not be made
	status  Status
	changed chan struct{} // closed when any of these has
	closed  bool
}

// Status says how a pool does.
type Status struct {
	Size   int `json:"size"`   // How many are to wait.
	Ready  int `json:"ready"`  // How many wait.
	Making int `json:"making"` // How many this process makes now.

	Warm uint64 `json:"warm"` // Machines handed out by this process that had waited,
	Cold uint64 `json:"cold"` // and that had to be made first.

	Failed uint64 `json:"failed"`          // Machines that could not be made, or were broken.
	Error  string `json:"error,omitempty"` // Why the last one could not be made; empty since one could.
}

// Open opens the pool of this name, 1 to 40 of a–z, 0–9 and '-', and begins to fill it. Machines that wait in it, made by whatever process, are there at once. The snapshot is told by its name or
// uid, and must not be deleted while the pool has machines of it.
func Open(ctx context.Context, rt *microvm.Runtime, name, snapshot string, options *Options) (*Pool, error) {
	p := &Pool{rt: rt, name: name, wake: make(chan struct{}, 1), changed: make(chan struct{}), taking: map[string]bool{}, taken: map[string]bool{}}
	if options != nil {
		p.options = *options
	}
	if err := p.resolve(); err != nil {
		return nil, fmt.Errorf("open pool %.80q: %w", name, err)
	}
	var err error
	if p.snapshot, err = rt.Snapshot(ctx, snapshot); err == nil {
		err = p.look(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open pool %s: %w", name, err)
	}
	life, end := context.WithCancel(context.Background())
	p.end = end
	p.working.Go(func() { p.keep(life) })
	p.working.Go(func() { p.watch(life) })
	return p, nil
}

// resolve fills defaults in and checks what can be checked without the host.
func (p *Pool) resolve() error {
	o := &p.options
	if p.name == "" || len(p.name) > 40 || strings.Trim(p.name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return &microvm.FieldError{Field: "name", Value: p.name, Reason: "must be 1 to 40 of a–z, 0–9 and '-'"}
	}
	if o.Size < 0 || o.Size > maxSize {
		return &microvm.FieldError{Field: "Options.Size", Value: o.Size, Reason: fmt.Sprintf("must be 0 to %d", maxSize)}
	}
	if o.MaxAge < 0 || o.Parallel < 0 || o.Interval < 0 {
		return &microvm.FieldError{Field: "Options", Value: fmt.Sprint(o.MaxAge, " ", o.Parallel, " ", o.Interval), Reason: "MaxAge, Parallel and Interval must not be negative"}
	}
	if o.Restore.Network != nil && len(o.Restore.Network.Publish) > 0 {
		return &microvm.FieldError{Field: "Options.Restore.Network.Publish", Value: o.Restore.Network.Publish, Reason: "must be empty (publish by ClaimOptions.Change)"}
	}
	if err := o.Restore.Validate(); err != nil {
		return err
	}
	p.size = cmp.Or(o.Size, defaultSize)
	o.Parallel, o.Interval = cmp.Or(o.Parallel, defaultParallel), cmp.Or(o.Interval, defaultInterval)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// restoreOptions are those of a machine that is to wait.
func (p *Pool) restoreOptions() *microvm.RestoreOptions {
	o := p.options.Restore
	o.Hold, o.Paused = true, false
	labels := map[string]string{}
	maps.Copy(labels, p.snapshot.Spec.Labels)
	if o.Labels != nil {
		labels = maps.Clone(o.Labels)
	}
	labels[Label], labels[SnapshotLabel] = p.name, p.snapshot.UID
	o.Labels = labels
	return &o
}

// Waits says whether a machine is one that waits in the pool of this name. One that was claimed keeps its labels, and so do machines that are restored from a snapshot of it.
func Waits(info *microvm.Info, pool string) bool {
	return info.Held && info.State == microvm.StatePaused && info.Spec.Labels[Label] == pool && strings.HasPrefix(info.Name, prefixOf(pool))
}

// prefixOf returns what begins the names of the machines that wait.
func prefixOf(pool string) string { return "pool-" + pool + "-" }

func (p *Pool) prefix() string { return prefixOf(p.name) }

// Status says how the pool does.
func (p *Pool) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Size, s.Ready, s.Making = p.size, len(p.ready), p.making
	return s
}

// Resize changes how many machines are to wait, 0 or more. It does not wait for that.
func (p *Pool) Resize(size int) error {
	if size < 0 || size > maxSize {
		return &microvm.FieldError{Field: "size", Value: size, Reason: fmt.Sprintf("must be 0 to %d", maxSize)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size = size
	p.change()
	p.kick()
	return nil
}

// Fill waits until as many machines wait as are to, or one can't be made.
func (p *Pool) Fill(ctx context.Context) error {
	p.mu.Lock()
	unmade := p.unmade
	p.mu.Unlock()
	return p.until(ctx, "fill", func() (bool, error) {
		if p.unmade > unmade && p.status.Error != "" {
			return false, errors.New(p.status.Error)
		}
		return len(p.ready) >= p.size, nil
	})
}

// Drain makes the pool one of size 0, and waits until no machine waits in it.
func (p *Pool) Drain(ctx context.Context) error {
	err := p.Resize(0)
	if err == nil {
		err = p.look(ctx) // what keeps the pool filled may rest after a failure
	}
	if err != nil {
		return fmt.Errorf("drain pool %s: %w", p.name, err)
	}
	err = p.until(ctx, "drain", func() (bool, error) { return p.making == 0 && len(p.ready) == 0, nil })
	if err == nil {
		err = p.look(ctx) // once who discards what was made last is done
	}
	return err
}

// until waits for what is true of the pool, under its lock.
func (p *Pool) until(ctx context.Context, what string, holds func() (bool, error)) error {
	p.kick()
	for {
		p.mu.Lock()
		ok, err := holds()
		if p.closed && !ok && err == nil {
			err = microvm.ErrClosed
		}
		changed := p.changed
		p.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s pool %s: %w", what, p.name, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s pool %s: %w", what, p.name, context.Cause(ctx))
		}
	}
}

// Close ends what the pool does in this process. Machines that wait go on to, for who opens it next.
func (p *Pool) Close() error {
	p.end()
	p.working.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.change()
	return nil
}

// change tells who waits; mu is held.
func (p *Pool) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// kick has the pool look at once.
func (p *Pool) kick() {
	select {
	case p.wake <- struct{}{}:
	default: // it will anyway
	}
}
