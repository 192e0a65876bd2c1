package warmpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

// attempts is how many machines that turn out to be broken Take puts up with, and races how many that others take first.
const (
	attempts = 4
	races    = 100
)

// Take hands out a machine under a name: one that waits, else one that is made now. What the options say is done before Take returns; the evidence says what the guest's agent did. See
// microvm.Runtime.Claim for its errors: [microvm.ErrExists] is of the name, [microvm.ErrInvalid] of the options, [microvm.ErrBusy] of a port; then nothing is taken.
func (p *Pool) Take(ctx context.Context, name string, options *microvm.ClaimOptions) (*microvm.VM, microvm.Evidence, error) {
	if strings.HasPrefix(name, p.prefix()) {
		return nil, nil, p.failed(&microvm.FieldError{Field: "name", Value: name, Reason: "is one of those that wait in the pool"})
	}
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, nil, p.failed(microvm.ErrClosed)
	}
	var errs []error
	for lost := 0; len(errs) < attempts && lost < races; {
		held, warm, err := p.next(ctx)
		if err != nil {
			return nil, nil, p.failed(errors.Join(append(errs, err)...))
		}
		vm, evidence, err := p.rt.Claim(ctx, held, name, options)
		p.claimed(held, warm, err)
		switch {
		case err == nil:
			return vm, evidence, nil
		case asked(err) || ctx.Err() != nil:
			return nil, evidence, p.failed(err)
		case errors.Is(err, microvm.ErrNotFound) || errors.Is(err, microvm.ErrState): // another was faster
			lost++
		default:
			errs = append(errs, err)
		}
	}
	return nil, nil, p.failed(cmp.Or(errors.Join(errs...), microvm.ErrBusy))
}

func (p *Pool) failed(err error) error { return fmt.Errorf("take from pool %s: %w", p.name, err) }

// asked says whether an error is of what was asked, and the machine is as good as it was.
func asked(err error) bool {
	return errors.Is(err, microvm.ErrExists) || errors.Is(err, microvm.ErrInvalid) || errors.Is(err, microvm.ErrBusy)
}

// next returns a machine that nobody else in this process claims: one that waits, else one that it makes.
func (p *Pool) next(ctx context.Context) (held string, warm bool, err error) {
	if held := p.pop(); held != "" {
		return held, true, nil
	}
	if err := p.look(ctx); err != nil { // another process may have made some
		return "", false, err
	}
	if held := p.pop(); held != "" {
		return held, true, nil
	}
	held = p.newName()
	p.mu.Lock()
	p.taking[held] = true
	p.mu.Unlock()
	if _, _, err := p.rt.Restore(ctx, p.snapshot.UID, held, p.restoreOptions()); err != nil {
		p.claimed(held, false, err)
		return "", false, err
	}
	return held, false, nil
}

func (p *Pool) pop() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return ""
	}
	held := p.ready[0]
	p.ready = p.ready[1:]
	p.taking[held], p.taken[held] = true, true
	p.change()
	return held
}

// claimed notes what became of a machine that was to be claimed.
func (p *Pool) claimed(held string, warm bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taking, held)
	switch {
	case err == nil && warm:
		p.status.Warm++
	case err == nil:
		p.status.Cold++
	case !errors.Is(err, microvm.ErrNotFound) && !errors.Is(err, microvm.ErrState) && !asked(err):
		p.status.Failed++
	}
	p.change()
	p.kick() // another is due, and one that could not be claimed may wait again
}
