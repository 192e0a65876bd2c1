package microvm

import (
	"context"
	"io"
	"net"
)

// VM is a handle on one machine. It holds a uid and no resource: copy and share it, drop it at any time. It survives
// Rename, and never comes to mean another machine.
type VM struct {
	driver Driver
	uid    string
}

// UID returns the machine's uid: 12 of a–z and 2–7.
func (v *VM) UID() string { return v.uid }

// Info says what the machine is now.
func (v *VM) Info(ctx context.Context) (Info, error) {
	info, err := v.driver.Info(ctx, v.uid)
	return info, opError("info", v.uid, err)
}

// Start boots a created or stopped machine and waits for its agent, where there is one. A running machine is left as it is. When Start
// returns an error the machine is as it was before, and the error has the VMM's last words.
func (v *VM) Start(ctx context.Context, options *StartOptions) error {
	return opError("start", v.uid, v.driver.Start(ctx, v.uid, value(options)))
}

// Stop powers the machine off, gracefully while the options allow it, and says how the run ended. A paused machine is resumed for it.
// When ctx ends first the machine may still run, and nothing escalates afterwards.
func (v *VM) Stop(ctx context.Context, options *StopOptions) (Exit, error) {
	exit, err := v.driver.Stop(ctx, v.uid, value(options))
	return exit, opError("stop", v.uid, err)
}

// Wait waits for the end of the present run and says how it ended, at once when none runs. A machine that was never started
// is [ErrState].
func (v *VM) Wait(ctx context.Context) (Exit, error) {
	exit, err := v.driver.Wait(ctx, v.uid)
	return exit, opError("wait", v.uid, err)
}

// Destroy ends the machine, whatever its state, and removes all that it had. Its name is free again.
func (v *VM) Destroy(ctx context.Context) error {
	return opError("destroy", v.uid, v.driver.Destroy(ctx, v.uid))
}

// Pause holds a running machine's vCPUs; its memory stays. A paused machine is left as it is.
func (v *VM) Pause(ctx context.Context) error {
	pauser, ok := v.driver.(Pauser)
	if !ok {
		return opError("pause", v.uid, ErrUnsupported)
	}
	return opError("pause", v.uid, pauser.Pause(ctx, v.uid))
}

// Resume lets a paused machine go on. A running machine is left as it is.
func (v *VM) Resume(ctx context.Context) error {
	pauser, ok := v.driver.(Pauser)
	if !ok {
		return opError("resume", v.uid, ErrUnsupported)
	}
	return opError("resume", v.uid, pauser.Resume(ctx, v.uid))
}

// Rename gives the machine another name, atomically, in any state. Handles stay good.
func (v *VM) Rename(ctx context.Context, name string) error {
	if err := ValidateName(name); err != nil {
		return opError("rename", v.uid, err)
	}
	renamer, ok := v.driver.(Renamer)
	if !ok {
		return opError("rename", v.uid, ErrUnsupported)
	}
	return opError("rename", v.uid, renamer.Rename(ctx, v.uid, name))
}

// Update changes the machine in any state: at once where it runs, and for every Start from then on. A bad change is a *[FieldError] and changes nothing. An error of the host's may
// leave a part of the change made: Update it again.
func (v *VM) Update(ctx context.Context, change Change) error {
	updater, ok := v.driver.(Updater)
	if !ok {
		return opError("update", v.uid, ErrUnsupported)
	}
	return opError("update", v.uid, updater.Update(ctx, v.uid, change))
}

// Stats says what the machine has done.
func (v *VM) Stats(ctx context.Context) (Stats, error) {
	meter, ok := v.driver.(Meter)
	if !ok {
		return Stats{}, opError("stats", v.uid, ErrUnsupported)
	}
	stats, err := meter.Stats(ctx, v.uid)
	return stats, opError("stats", v.uid, err)
}

// Trim gives the host the blocks of the machine's own disk back that its file system does not use, and returns how many bytes that were. A machine that runs or is paused is
// [ErrState]: a guest's discard does not reach the host. A disk whose file system is not known, or was not unmounted, as after a forced end, is [ErrUnsupported]. One that has no
// disk of its own has nothing to give.
func (v *VM) Trim(ctx context.Context) (freed int64, err error) {
	trimmer, ok := v.driver.(Trimmer)
	if !ok {
		return 0, opError("trim", v.uid, ErrUnsupported)
	}
	freed, err = trimmer.Trim(ctx, v.uid)
	return freed, opError("trim", v.uid, err)
}

// Dial connects to a vsock port of the guest. The connection has no CloseWrite: the VMM ends both directions at once. An error matches [ErrExited] when there is no VMM to
// connect through, syscall.ECONNREFUSED when nobody listens in the guest, and [ErrNoAnswer] when the guest does neither within 5 seconds.
func (v *VM) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	dialer, ok := v.driver.(Dialer)
	if !ok {
		return nil, opError("dial", v.uid, ErrUnsupported)
	}
	conn, err := dialer.Dial(ctx, v.uid, port)
	return conn, opError("dial", v.uid, err)
}

// Listen accepts the guest's connections to a vsock port of the host, which has CID 2, during the present run. They have no CloseWrite either.
func (v *VM) Listen(ctx context.Context, port uint32) (net.Listener, error) {
	dialer, ok := v.driver.(Dialer)
	if !ok {
		return nil, opError("listen", v.uid, ErrUnsupported)
	}
	listener, err := dialer.Listen(ctx, v.uid, port)
	return listener, opError("listen", v.uid, err)
}

// Console reads what the guest wrote to its serial console during the last run, of which the newest part is kept.
// It is the guest's word: nothing may be concluded from it.
func (v *VM) Console(ctx context.Context, options *ConsoleOptions) (io.ReadCloser, error) {
	consoler, ok := v.driver.(Consoler)
	if !ok {
		return nil, opError("console", v.uid, ErrUnsupported)
	}
	if options != nil && options.Tail < 0 {
		return nil, opError("console", v.uid, &FieldError{Field: "ConsoleOptions.Tail", Value: options.Tail, Reason: "must not be negative"})
	}
	reader, err := consoler.Console(ctx, v.uid, value(options))
	return reader, opError("console", v.uid, err)
}

// value returns what options point to, or the zero value.
func value[T any](options *T) T {
	if options == nil {
		var zero T
		return zero
	}
	return *options
}
