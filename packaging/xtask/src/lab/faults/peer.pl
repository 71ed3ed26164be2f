# The peers and the misbehaving processes of the drill: peer.pl ROLE NAME [ADDRESS:PORT].
# A file /run/lab/NAME says how it behaves at the moment; without it, it behaves well.
use strict;
use warnings;
use IO::Socket::INET;
use Socket;

my ($role, $name, $at) = @ARGV;
$0 = "lab-$name" if $role eq 'process';

sub mood {
    open(my $file, '<', "/run/lab/$name") or return '';
    my $mood = <$file> // '';
    chomp $mood;
    return $mood;
}

sub http {
    my ($client) = @_;
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    my $mood = mood();
    select(undef, undef, undef, 0.6) if $mood eq 'slow';
    my $body = $mood eq 'other' ? "an error occurred\n" : "all is well\n";
    my $status = $mood eq '500' ? '500 Internal Server Error' : '200 OK';
    print $client "HTTP/1.1 $status\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
}

sub banner {
    my ($client) = @_;
    my $mood = mood();
    sleep 5 if $mood eq 'deaf';
    print $client $mood eq 'wrong' ? "554 go away\r\n" : "220 lab ready\r\n";
}

sub dns {
    my $socket = IO::Socket::INET->new(LocalAddr => $at, Proto => 'udp') or die "$at: $!";
    while (my $from = $socket->recv(my $query, 4096)) {
        my $mood = mood();
        next if length($query) < 17 or $mood eq 'silent';
        my $end = 12;
        $end += 1 + ord(substr($query, $end, 1)) while $end < length($query) and ord(substr($query, $end, 1));
        $end += 5;
        my $is_a = unpack('n', substr($query, $end - 4, 2)) == 1;
        my $reply = substr($query, 0, 2) . pack('n5', 0x8180, 1, $is_a ? 1 : 0, 0, 0) . substr($query, 12, $end - 12);
        my $address = $mood eq 'wrong' ? '203.0.113.9' : '192.0.2.1';
        $reply .= pack('n3Nn', 0xc00c, 1, 1, 300, 4) . inet_aton($address) if $is_a;
        $socket->send($reply, 0, $from);
    }
}

sub serve {
    my ($answer) = @_;
    my $socket = IO::Socket::INET->new(LocalAddr => $at, Listen => 20, ReuseAddr => 1) or die "$at: $!";
    $SIG{CHLD} = 'IGNORE';
    while (1) {
        my $client = $socket->accept or next;
        if (!fork) {
            $answer->($client);
            close $client;
            exit;
        }
        close $client;
    }
}

# Listens, but does not accept.
sub busy {
    my $socket = IO::Socket::INET->new(LocalAddr => $at, Listen => 1, ReuseAddr => 1) or die "$at: $!";
    sleep 60 while 1;
}

sub process {
    my ($bad, @open, $memory) = ('');
    while (1) {
        my $mood = mood();
        if ($mood ne $bad) {
            $bad = $mood;
            if ($mood eq 'memory') { my $size = 100 * 1024 * 1024; $memory = 'x' x $size }
            if ($mood eq 'files') { while (@open < 60) { open(my $file, '<', '/dev/null') or last; push @open, $file } }
            if ($mood eq 'zombies') { for (1 .. 14) { fork or exit } }
            if ($mood eq '') {
                undef $memory;
                @open = ();
                1 while waitpid(-1, 1) > 0;
            }
        }
        select(undef, undef, undef, 0.2);
    }
}

# Connects and never waits for the answer.
sub flood {
    my ($host, $port) = split /:/, $at;
    my $to = pack_sockaddr_in($port, inet_aton($host));
    my @open;
    while (1) {
        my $socket = IO::Socket::INET->new(Proto => 'tcp', Blocking => 0);
        connect($socket, $to);
        push @open, $socket;
        shift @open if @open > 200;
        select(undef, undef, undef, 0.02);
    }
}

# One datagram to each of many ports and addresses, so that the firewall tracks each.
sub many {
    my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1');
    while (1) {
        for my $host (10 .. 13) {
            my $address = inet_aton("127.0.1.$host");
            for my $port (1024 .. 56_000) { send($socket, 'x', 0, pack_sockaddr_in($port, $address)) }
        }
        sleep 5;
    }
}

# Memory, all of it used.
sub eat {
    my @eaten;
    my $size = 1024 * 1024;
    push @eaten, 'x' x $size for 1 .. 200;
}

my %roles = (
    eat => \&eat,
    http => sub { serve(\&http) },
    banner => sub { serve(\&banner) },
    dns => \&dns,
    busy => \&busy,
    process => \&process,
    flood => \&flood,
    many => \&many,
);
$roles{$role}->();
