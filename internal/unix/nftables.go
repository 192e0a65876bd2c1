//go:build linux

package unix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// NftablesGeneration asks nf_tables for the number of its rules' generation, which changes with every change of them (NFT_MSG_GETGEN, include/uapi/linux/netfilter/nf_tables.h).
// It needs root. The kernel loads the module where it is not loaded.
func NftablesGeneration() (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	const getGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	message := make([]byte, unix.NLMSG_HDRLEN+4) // and nfgenmsg: family, version, resource, all 0
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], getGeneration)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, os.NewSyscallError("recvfrom", err)
	}
	return generationIn(answer[:n])
}

// generationIn reads the answer: the generation, or an error.
func generationIn(answer []byte) (uint32, error) {
	const newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) == 0 {
		return 0, errors.Join(errors.New("netlink: no answer"), err)
	}
	m := messages[0]
	switch m.Header.Type {
	case unix.NLMSG_ERROR:
		if len(m.Data) < 4 {
			return 0, errors.New("netlink: an error without a number")
		}
		return 0, os.NewSyscallError("NFT_MSG_GETGEN", syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
	case newGeneration:
	default:
		return 0, fmt.Errorf("netlink: answer of type %#x", m.Header.Type)
	}
	for rest := m.Data[min(4, len(m.Data)):]; len(rest) >= unix.NLA_HDRLEN; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < unix.NLA_HDRLEN || length > len(rest) {
			break
		}
		if binary.NativeEndian.Uint16(rest[2:]) == unix.NFTA_GEN_ID && length == unix.NLA_HDRLEN+4 {
			return binary.BigEndian.Uint32(rest[unix.NLA_HDRLEN:]), nil
		}
		rest = rest[min(len(rest), (length+3)&^3):]
	}
	return 0, errors.New("netlink: no generation in the answer")
}
