package wire

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Bounds of tunnels.
const (
	MaxTunnels   = 1024 // That an agent serves at once.
	MaxListeners = 64   // That an agent has at once.
	MaxIncoming  = 128  // Connections to a listener that the host has not accepted. More wait in the guest's kernel.
	maxHost      = 255  // Bytes of a host's name, and
	maxUnixPath  = 107  // of a socket's path (unix(7)).
)

// Dial is the body of POST PathDial: the connection becomes a tunnel to the target.
type Dial struct {
	Target string `json:"target"` // See Target.
}

// Listen is the body of POST PathListen. The answer is followed by a frame Incoming for each connection that comes to the address; the listener ends with the request's
// connection.
type Listen struct {
	ID      string `json:"id"`      // Chosen by the host: see ValidID.
	Address string `json:"address"` // See Target.
}

// Accept is the body of POST PathAccept: the connection becomes a tunnel to one that has come. CodeGone when it has been accepted, or was let go.
type Accept struct {
	ID     string `json:"id"` // Of the Listen.
	Number uint64 `json:"number"`
}

// Target returns the network and the address that a text means, as package net has them: HOST:PORT is TCP, an absolute path is a Unix domain socket.
func Target(text string) (network, address string, err error) {
	if strings.HasPrefix(text, "/") {
		if len(text) > maxUnixPath || strings.ContainsRune(text, 0) {
			return "", "", fmt.Errorf("a socket's path is at most %d bytes without NUL", maxUnixPath)
		}
		return "unix", text, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || len(host) > maxHost {
		return "", "", fmt.Errorf("%q is neither HOST:PORT nor an absolute path", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("port %q is not 1 to 65535", port)
	}
	return "tcp", text, nil
}
