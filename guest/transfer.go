package guest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// maxRest bounds what an agent may send behind the end of a tar.
const maxRest = 1 << 20

// copies asks whether the agent copies files, and whether a copy whose connection broke goes on. It asks again when that broke.
func copies(ctx context.Context, d Dialer) (resumes bool, err error) {
	return persist(ctx, reconnectPatience, func() (bool, error) {
		h, err := GetHealth(ctx, d)
		if err != nil {
			return false, err
		}
		return slices.Contains(h.Features, wire.FeatureResume), lacks(h, wire.FeatureCopy)
	})
}

// askFor asks what can be asked twice: again, when the connection broke.
func askFor[T any](ctx context.Context, d Dialer, path string, body any) (T, error) {
	return persist(ctx, reconnectPatience, func() (answer T, err error) {
		err = call(ctx, d, "POST", path, body, &answer)
		return answer, err
	})
}

// transfer makes a connection for one copy.
func transfer(ctx context.Context, d Dialer, path string, body any) (net.Conn, *bufio.Reader, error) {
	if _, err := copies(ctx, d); err != nil {
		return nil, nil, err
	}
	return upgrade(ctx, d, path, body)
}

// outcome makes an error of how an agent says that a copy has ended.
func outcome(text []byte) (*wire.CopiedResult, error) {
	var result wire.CopiedResult
	if err := json.Unmarshal(text, &result); err != nil {
		return nil, fmt.Errorf("%w: how the copy ended: %w", ErrAgent, err)
	}
	if result.Error == nil {
		return &result, nil
	}
	body, err := json.Marshal(result.Error)
	if err != nil {
		return nil, err
	}
	return &result, refused(0, body)
}

// download is what an agent sends. It ends with the agent's own word that it was all, and with nothing else.
type download struct {
	ctx   context.Context
	conn  net.Conn
	data  *wire.DataReader
	stop  func() bool
	ended error
}

// receive asks for files. The end of ctx ends the download.
func receive(ctx context.Context, d Dialer, request wire.FilesRead) (*download, error) {
	if _, err := copies(ctx, d); err != nil {
		return nil, err
	}
	return fetch(ctx, d, request)
}

// fetch is receive from an agent that is known to copy files.
func fetch(ctx context.Context, d Dialer, request wire.FilesRead) (*download, error) {
	conn, in, err := upgrade(ctx, d, wire.PathFilesRead, &request)
	if err != nil {
		return nil, err
	}
	return &download{ctx: ctx, conn: conn, data: wire.NewDataReader(in, wire.Copied), stop: context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

// Read returns io.EOF only when the agent has said that it was all.
func (d *download) Read(p []byte) (int, error) {
	if d.ended != nil {
		return 0, d.ended
	}
	n, err := d.data.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF:
		_, d.ended = outcome(d.data.Last())
		if d.ended == nil {
			d.ended = io.EOF
		}
	case errors.Is(err, wire.ErrFrame):
		d.ended = fmt.Errorf("%w: %w", ErrAgent, err)
	default:
		d.ended = fmt.Errorf("%w: %w", errBroken, err)
		if cause := context.Cause(d.ctx); cause != nil {
			d.ended = cause
		}
	}
	return n, d.ended
}

// drain waits for the agent's word behind the end of a tar.
func (d *download) drain() error {
	n, err := io.Copy(io.Discard, io.LimitReader(d, maxRest))
	if err == nil && n == maxRest {
		err = fmt.Errorf("%w: more behind the end of a tar", ErrAgent)
	}
	return err
}

// Close ends the download, also one that is not at its end.
func (d *download) Close() error {
	d.stop()
	return d.conn.Close()
}

// send sends a tar, and waits for how it ended: the agent's word when there is one. With wait, produce has returned when send does; else an end that comes early leaves it behind in a
// Read that nobody can end.
func send(ctx context.Context, d Dialer, request *wire.FilesWrite, wait bool, produce func(context.Context, io.Writer) error) (*wire.CopiedResult, error) {
	conn, in, err := transfer(ctx, d, wire.PathFilesWrite, request)
	if err != nil {
		return nil, err
	}
	return sendOn(ctx, conn, in, wait, produce)
}

// sendOn is send on a connection, which it closes. An agent that can't go on says so while it is sent to.
func sendOn(ctx context.Context, conn net.Conn, in *bufio.Reader, wait bool, produce func(context.Context, io.Writer) error) (*wire.CopiedResult, error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	produced := make(chan error, 1)
	go supply(sending, conn, produce, produced)
	result, err := await(in)
	cancel()
	conn.Close()
	var own error
	if wait {
		own = <-produced
	} else {
		select {
		case own = <-produced:
		default:
		}
	}
	if result == nil {
		err = ended(ctx, cmp.Or(own, err))
	}
	return result, err
}

// supply sends what produce writes, and says what of that is not the connection's fault. A source that fails ends the connection: the agent must not take a part for all.
func supply(ctx context.Context, conn net.Conn, produce func(context.Context, io.Writer) error, produced chan<- error) {
	out := wire.NewDataWriter(conn)
	err := produce(ctx, out)
	switch {
	case out.Err() != nil || ctx.Err() != nil:
		produced <- nil // what the agent says of it is the reason, or that it is gone
	case err != nil:
		produced <- err
		conn.Close()
	default:
		out.End(wire.DataEnd, nil)
		produced <- nil
	}
}

// await waits for the agent's word.
func await(in *bufio.Reader) (*wire.CopiedResult, error) {
	frame, err := wire.NewReader(in).Read()
	switch {
	case errors.Is(err, wire.ErrFrame):
		return nil, fmt.Errorf("%w: %w", ErrAgent, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	case frame.Kind != wire.Copied:
		return nil, fmt.Errorf("%w: kind %d for how the copy ended", ErrAgent, frame.Kind)
	}
	return outcome(frame.Payload)
}
