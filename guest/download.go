package guest

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// downloading is a copy from the guest. When its connection breaks another goes on where this side is.
type downloading struct {
	dialer  Dialer
	request wire.FilesRead
	present *download
	moved   time.Time // when it was last somewhere else than before
}

// run takes the copy to the host.
func (d *downloading) run(ctx context.Context, hostPath string, resume bool, o tree.PutOptions) (tree.Progress, error) {
	resumes, err := copies(ctx, d.dialer)
	if err != nil {
		return tree.Progress{}, err
	}
	if resume {
		if !resumes {
			return tree.Progress{}, tooOld(wire.FeatureResume)
		}
		if d.request.Have, err = d.compare(ctx, hostPath, o); err != nil {
			return tree.Progress{}, err
		}
	}
	d.moved = time.Now()
	if resumes {
		o.Again = func(at tree.Position, failed error) (io.Reader, error) { return d.again(ctx, at, failed) }
		err = d.reopen(ctx)
	} else {
		d.present, err = fetch(ctx, d.dialer, d.request)
	}
	if err != nil {
		return tree.Progress{}, err
	}
	defer func() { d.present.Close() }()
	progress, err := tree.Put(ctx, d.present, hostPath, o)
	if err == nil {
		err = d.present.drain()
		if resumes && errors.Is(err, errBroken) {
			err = nil // the tar's end has come, which an agent sends when all has been sent
		}
	}
	return progress, err
}

// reopen makes the connection.
func (d *downloading) reopen(ctx context.Context) error {
	next, err := persist(ctx, reconnectPatience, func() (*download, error) { return fetch(ctx, d.dialer, d.request) })
	if err == nil {
		d.present = next
	}
	return err
}

// again goes on after a connection that broke: as long as each brings something on.
func (d *downloading) again(ctx context.Context, at tree.Position, failed error) (io.Reader, error) {
	d.present.Close()
	if !errors.Is(failed, errBroken) {
		return nil, failed
	}
	if at != d.request.From {
		d.request.From, d.moved = at, time.Now()
	}
	if time.Since(d.moved) > reconnectPatience {
		return nil, failed
	}
	if err := pause(ctx); err != nil {
		return nil, err
	}
	if err := d.reopen(ctx); err != nil {
		return nil, err
	}
	return d.present, nil
}

// compare says up to where all is here already.
func (d *downloading) compare(ctx context.Context, hostPath string, o tree.PutOptions) (wire.Name, error) {
	request := d.request
	request.Heads = true
	return persist(ctx, reconnectPatience, func() (wire.Name, error) {
		heads, err := fetch(ctx, d.dialer, request)
		if err != nil {
			return "", err
		}
		defer heads.Close()
		return tree.Compare(ctx, heads, hostPath, o)
	})
}
