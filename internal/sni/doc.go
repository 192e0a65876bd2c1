// Package sni lets TLS connections through by the name that the client asks for.
//
// There are only two types to begin with. A [Gate] takes connections that netfilter has sent to it, reads the client's first message, a [Hello], asks whether its name may go
// where the connection was going, and then is nothing but a pipe. [ReadHello] is the reading by itself.
//
// # Caveats
//
// The gate sees what the client says in the clear. With an encrypted ClientHello that is the outer name (Hello.Encrypted tells); the server may take the connection for
// another one, if it has the key. The certificate is not looked at: it is encrypted in TLS 1.3, and proves the name to the client only.
//
// What is not TLS, and TLS without a name, as clients speak to an address, is denied. So is a protocol in which the server speaks first, or that begins in the clear
// (STARTTLS): after Options.HelloTimeout, as no hello comes.
//
// A connection that goes through has six descriptors: two sockets, and a pipe for each direction, through which the kernel copies.
//
// The reading is strict: what two readers may understand differently is denied, such as a second name or an extension that is there twice.
package sni
