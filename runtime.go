package microvm

import (
	"context"
	"iter"
	"slices"
)

// Runtime makes and finds machines. It may be used by many goroutines at once.
type Runtime struct {
	driver Driver
}

// New returns a Runtime on a driver. Callers rather use firecracker.New, firecracker.FromEnv or inmemory.New.
func New(driver Driver) *Runtime {
	return &Runtime{driver: driver}
}

// Create makes a machine, without starting it. The spec is checked whole before anything is touched: a bad field is a *[FieldError],
// which matches [ErrInvalid]; a taken name is [ErrExists]. When Create returns an error nothing is left of the machine.
func (r *Runtime) Create(ctx context.Context, name string, spec Spec) (*VM, error) {
	if err := ValidateName(name); err != nil {
		return nil, opError("create", name, err)
	}
	if err := spec.Validate(); err != nil {
		return nil, opError("create", name, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, opError("create", name, err)
	}
	uid, err := r.driver.Create(ctx, name, spec.Copy())
	if err != nil {
		return nil, opError("create", name, err)
	}
	return &VM{driver: r.driver, uid: uid}, nil
}

// VM returns a handle on the machine with this name, else on the one with this uid, else [ErrNotFound].
func (r *Runtime) VM(ctx context.Context, ref string) (*VM, error) {
	uid, err := r.driver.Resolve(ctx, ref)
	if err != nil {
		return nil, opError("find", ref, err)
	}
	return &VM{driver: r.driver, uid: uid}, nil
}

// List returns the machines that the filter chooses, sorted by name.
func (r *Runtime) List(ctx context.Context, filter *Filter) ([]Info, error) {
	infos, err := r.driver.List(ctx)
	if err != nil {
		return nil, opError("list", "", err)
	}
	return slices.DeleteFunc(infos, func(info Info) bool { return !filter.Match(&info) }), nil
}

// Watch tells what happens to the machines that the filter's labels choose, by whatever process it is done, from this call on. The
// iteration ends when ctx ends or when it is left. Filter.States chooses by the type of the event: created, running for
// started and resumed, paused, stopped.
func (r *Runtime) Watch(ctx context.Context, filter *Filter) (iter.Seq2[Event, error], error) {
	watcher, ok := r.driver.(Watcher)
	if !ok {
		return nil, opError("watch", "", ErrUnsupported)
	}
	events, err := watcher.Watch(ctx)
	if err != nil {
		return nil, opError("watch", "", err)
	}
	return func(yield func(Event, error) bool) {
		for event, err := range events {
			if err == nil && !filter.matchEvent(&event) {
				continue
			}
			if !yield(event, opError("watch", event.Name, err)) {
				return
			}
		}
	}, nil
}

func (f *Filter) matchEvent(event *Event) bool {
	states := map[EventType]State{
		EventCreated: StateCreated, EventStarted: StateRunning, EventResumed: StateRunning,
		EventPaused: StatePaused, EventStopped: StateStopped,
	}
	return f.Match(&Info{State: states[event.Type], Spec: Spec{Labels: event.Labels}})
}

// Recover is for a process that begins: it adopts the machines that run, finishes destroys, takes back creates and starts that were interrupted, settles runs that ended while nobody looked,
// gives back what was leased to machines that are gone, and sets again what the host needs for their networks. It may be called at any time, again, and beside other processes that work on
// machines. One machine's harm does not keep it from the others: the report has the errors too.
func (r *Runtime) Recover(ctx context.Context, options *RecoverOptions) (Report, error) {
	recoverer, ok := r.driver.(Recoverer)
	if !ok {
		return nil, opError("recover", "", ErrUnsupported)
	}
	report, err := recoverer.Recover(ctx, value(options))
	return report, opError("recover", "", err)
}

// Close ends this process's goroutines and descriptors. Machines run on; any process can find them again.
// Close may be called more than once.
func (r *Runtime) Close() error {
	return opError("close", "", r.driver.Close())
}
