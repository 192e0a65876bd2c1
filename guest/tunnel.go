package guest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/tunnel"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// DialTCP connects to what listens in the guest, through the agent: the guest needs no network for it. The target is HOST:PORT as the guest has them, such as
// "127.0.0.1:8080", or an absolute path of a Unix domain socket there.
//
// The connection has CloseWrite, and deadlines. Its Close waits up to 5 seconds for room for what it says last. When it is cut off, as all are when the machine is
// snapshotted, reads return an error that matches io.ErrUnexpectedEOF and not io.EOF. ctx bounds the call and not the connection.
//
// An error matches syscall.ECONNREFUSED when nobody listens there, ErrNotFound when there is no such socket or name, microvm.ErrNoAnswer when nothing answers within 10
// seconds, microvm.ErrBusy when 1,024 are open, and microvm.ErrUnsupported when the agent is too old.
func DialTCP(ctx context.Context, d Dialer, target string) (net.Conn, error) {
	c, err := dialTunnel(ctx, d, target)
	if err != nil {
		return nil, fmt.Errorf("dial %s in the guest: %w", target, err)
	}
	return c, nil
}

func dialTunnel(ctx context.Context, d Dialer, target string) (*tunnel.Conn, error) {
	if err := checkTarget("target", target); err != nil {
		return nil, err
	}
	conn, in, err := upgrade(ctx, d, wire.PathDial, wire.Dial{Target: target})
	if err != nil {
		return nil, explain(ctx, d, err, wire.FeatureDial)
	}
	return tunnel.New(conn, in, place(target)), nil
}

func checkTarget(field, target string) error {
	if _, _, err := wire.Target(target); err != nil {
		return &microvm.FieldError{Field: field, Value: target, Reason: err.Error()}
	}
	return nil
}

// upgrade makes a connection to the agent on which frames follow.
func upgrade(ctx context.Context, d Dialer, path string, body any) (net.Conn, *bufio.Reader, error) {
	conn, in, response, err := request(ctx, d, "POST", path, body, wire.Upgrade)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return conn, in, nil
	}
	defer conn.Close()
	text, err := content(ctx, conn, response)
	if err != nil {
		return nil, nil, err
	}
	return nil, nil, refused(response.StatusCode, text)
}

// place is an address in the guest.
type place string

func (place) Network() string  { return "microvm" }
func (p place) String() string { return string(p) }
