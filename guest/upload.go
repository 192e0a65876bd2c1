package guest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/tree"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// endPatience is how long the agent may take to hear that nobody goes on with a copy.
const endPatience = time.Second

// uploading is a copy to the guest. When its connection breaks another goes on where the agent is.
type uploading struct {
	dialer   Dialer
	request  *wire.FilesWrite
	at       string // the source's path
	pack     tree.PackOptions
	progress tree.Progress // what was sent
}

// run returns how it ended, as the agent says, and else why it did.
func (u *uploading) run(ctx context.Context, resume bool) (*wire.CopiedResult, error) {
	resumes, err := copies(ctx, u.dialer)
	switch {
	case err != nil:
		return nil, err
	case !resumes && resume:
		return nil, tooOld(wire.FeatureResume)
	case !resumes:
		return u.send(ctx, wire.PathFilesWrite, u.produce)
	case resume:
		if u.pack.Have, err = u.compare(ctx); err != nil {
			return nil, err
		}
	}
	u.request.ID = rand.Text()
	result, err := u.all(ctx)
	if result == nil && !errors.Is(err, errBroken) {
		u.end(ctx)
	}
	return result, err
}

func (u *uploading) produce(ctx context.Context, w io.Writer) (err error) {
	u.progress, err = tree.Pack(ctx, w, u.at, u.pack)
	return err
}

// send is sendOn on a connection of its own.
func (u *uploading) send(ctx context.Context, path string, produce func(context.Context, io.Writer) error) (*wire.CopiedResult, error) {
	conn, in, err := upgrade(ctx, u.dialer, path, u.request)
	if err != nil {
		return nil, err
	}
	return sendOn(ctx, conn, in, true, produce)
}

// compare asks up to where all is there already.
func (u *uploading) compare(ctx context.Context) (wire.Name, error) {
	heads := u.pack
	heads.Heads = true
	return persist(ctx, reconnectPatience, func() (wire.Name, error) {
		result, err := u.send(ctx, wire.PathFilesCompare, func(ctx context.Context, w io.Writer) error {
			_, err := tree.Pack(ctx, w, u.at, heads)
			return err
		})
		if err != nil {
			return "", err
		}
		return result.Have, nil
	})
}

// all sends all, over any number of connections: as long as each brings something on.
func (u *uploading) all(ctx context.Context) (*wire.CopiedResult, error) {
	for moved := time.Now(); ; {
		conn, in, result, err := u.connect(ctx, &moved)
		if conn == nil {
			return result, err
		}
		result, err = sendOn(ctx, conn, in, true, u.produce)
		if !errors.Is(err, errBroken) || time.Since(moved) > reconnectPatience || pause(ctx) != nil {
			return result, ended(ctx, err)
		}
	}
}

// connect makes a connection on which the copy goes on. There is none when it has ended.
func (u *uploading) connect(ctx context.Context, moved *time.Time) (conn net.Conn, in *bufio.Reader, result *wire.CopiedResult, err error) {
	attached := u.request.Attach
	_, err = persist(ctx, reconnectPatience, func() (struct{}, error) {
		u.request.Attempt++
		conn, in, err = upgrade(ctx, u.dialer, wire.PathFilesWrite, u.request)
		if err != nil {
			return struct{}{}, err
		}
		var at wire.Position
		if at, result, err = where(ctx, conn, in); err != nil || result != nil {
			conn.Close()
			conn = nil
			return struct{}{}, err
		}
		if at != u.pack.From {
			*moved = time.Now()
		}
		u.pack.From, u.request.Attach = at, true
		return struct{}{}, nil
	})
	if attached && errors.Is(err, ErrNotFound) && result == nil {
		err = fmt.Errorf("%w: the agent has given the copy up: %w", errBroken, err)
	}
	return conn, in, result, err
}

// where reads where the agent is: it says so first, or how the copy has ended.
func where(ctx context.Context, conn net.Conn, in *bufio.Reader) (at wire.Position, result *wire.CopiedResult, err error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	frame, err := wire.NewReader(in).Read()
	switch {
	case errors.Is(err, wire.ErrFrame):
		return at, nil, fmt.Errorf("%w: %w", ErrAgent, err)
	case err != nil:
		return at, nil, ended(ctx, fmt.Errorf("%w: %w", errBroken, err))
	case frame.Kind == wire.Copied:
		result, err = outcome(frame.Payload)
		return at, result, err
	case frame.Kind != wire.At:
		return at, nil, fmt.Errorf("%w: kind %d for where a copy is", ErrAgent, frame.Kind)
	}
	if err := json.Unmarshal(frame.Payload, &at); err != nil {
		return at, nil, fmt.Errorf("%w: where a copy is: %w", ErrAgent, err)
	}
	return at, nil, nil
}

// end tells the agent that nobody goes on, so that it keeps no part.
func (u *uploading) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	call(ctx, u.dialer, "POST", wire.PathFilesEnd, wire.FilesEnd{ID: u.request.ID}, nil)
}
